//! The flows of the links: opened, changed, moved and closed as they are planned.

use log::Level;

use super::{LOGGED_ATTEMPTS, Open, Running};
use crate::config::Transport;
use crate::daemon::choice::Trouble;
use crate::daemon::links::{Flow, Plan, Present, plan};
use crate::daemon::packet_loop::{Carrier, Command};
use crate::io::udp::UdpSocket;
use crate::proto::event::LinkId;
use crate::sorted::Map;

impl Running<'_> {
    /// The flows that are open, and the trouble of those that are not usable.
    fn present(&self) -> Map<LinkId, Present> {
        let now = self.clock.now();
        let present = |(id, open): (&LinkId, &Open)| {
            let trouble = (!self.usable.contains(id)).then(|| Trouble {
                waited: now.since(open.waiting_since),
                attempts: open.attempts,
                is_doubted: open.is_doubted,
            });
            let flow = open.flow.clone();
            (*id, Present { flow, trouble })
        };
        self.open.iter().map(present).collect()
    }

    /// Opens, moves and closes the links' sockets so that they are as planned.
    pub(super) fn update_links(&mut self) {
        let present = self.present();
        let mut plans = plan(
            &self.config,
            &mut self.ids,
            &self.observed,
            &self.resolved,
            &present,
        );
        let gone: Vec<LinkId> = self
            .open
            .keys()
            .filter(|id| {
                !plans
                    .iter()
                    .any(|plan| plan.id == **id && plan.flow.is_ok())
            })
            .copied()
            .collect();
        for id in gone {
            self.close(id);
        }
        for plan in &plans {
            self.free_port(plan);
        }
        for plan in &mut plans {
            self.update_link(plan);
        }
        self.plans = plans;
    }

    /// An old socket with a fixed port goes before a new one needs its port.
    fn free_port(&mut self, plan: &Plan) {
        let Some((flow, open)) = plan.flow.as_ref().ok().zip(self.open.get_mut(&plan.id)) else {
            return;
        };
        if open.flow == *flow || open.flow.origin.port.is_none() {
            return;
        }
        if std::mem::take(&mut open.opened) {
            self.packets.tell(Command::CloseLink(plan.id));
            self.closing.insert(plan.id);
        }
        // The next plan goes on from here.
        open.flow = flow.clone();
        open.waiting_since = self.clock.now();
    }

    /// Does what a link's plan says; when that fails, the plan says why.
    fn update_link(&mut self, plan: &mut Plan) {
        let before = self
            .plans
            .iter()
            .find(|it| it.id == plan.id)
            .and_then(|it| it.flow.clone().err());
        let is_new = |reason: &String| before.as_ref() != Some(reason);
        let flow = match &plan.flow {
            Ok(flow) => flow.clone(),
            Err(reason) => {
                if is_new(reason) {
                    log::info!("link {} waits: {reason}", plan.name);
                }
                return;
            }
        };
        let open = self.open.get_mut(&plan.id);
        let open = open.filter(|open| open.opened && open.flow == flow);
        if let Some(open) = open.filter(|open| open.plan.transport == plan.transport) {
            if open.plan.terms != plan.terms {
                self.packets.tell(Command::ChangeLink(plan.id, plan.terms));
            }
            open.plan = plan.clone();
            return;
        }
        if flow.origin.port.is_some() && !self.closing.is_empty() {
            plan.flow = Err("its port is being freed".to_owned());
            return;
        }
        let was_usable = self.usable.contains(&plan.id);
        let attempts = match self.open.get(&plan.id) {
            Some(open) if !was_usable => open.attempts.saturating_add(1),
            Some(_) | None => 0,
        };
        match self.open(plan, &flow, attempts) {
            Ok(()) => {
                self.usable.remove(&plan.id);
                let open = Open {
                    flow,
                    plan: plan.clone(),
                    waiting_since: self.clock.now(),
                    attempts,
                    is_doubted: false,
                    opened: true,
                };
                self.open.insert(plan.id, open);
            }
            Err(reason) => {
                self.close(plan.id);
                if is_new(&reason) {
                    log::warn!("link {} waits: {reason}", plan.name);
                }
                plan.flow = Err(reason);
            }
        }
    }

    fn open(&self, plan: &Plan, flow: &Flow, attempts: u32) -> Result<(), String> {
        let carrier = match plan.transport {
            Transport::Udp => {
                Carrier::Udp(UdpSocket::link(&flow.origin).map_err(|error| error.to_string())?)
            }
            Transport::Tcp => Carrier::Tcp(flow.origin.clone()),
        };
        // A link that is dead for days says so once.
        let level = if attempts < LOGGED_ATTEMPTS {
            Level::Info
        } else {
            Level::Debug
        };
        log::log!(
            level,
            "link {}: {} {} to {}",
            plan.name,
            plan.transport,
            flow.origin,
            flow.remote
        );
        self.packets.tell(Command::OpenLink {
            link: plan.id,
            carrier,
            remote: flow.remote,
            terms: plan.terms,
        });
        Ok(())
    }

    fn close(&mut self, id: LinkId) {
        self.usable.remove(&id);
        if let Some(open) = self.open.remove(&id).filter(|open| open.opened) {
            self.packets.tell(Command::CloseLink(id));
            if open.flow.origin.port.is_some() {
                self.closing.insert(id);
            }
        }
    }
}
