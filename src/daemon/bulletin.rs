//! News of the packet thread on their way to control: bounded, and never waited for. While control is
//! busy, what is newer takes the place of what it makes void, so nothing that matters is lost.

use log::Level;
use tokio::sync::mpsc;

use super::packet_loop::News;
use super::sockets::Note;
use crate::proto::event::Event;

/// News that control has not read yet.
pub(super) const CHANNEL: usize = 64;
/// Lines for the log that wait beside them.
const MOST_NOTES: usize = 16;

/// The packet thread's end of the channel.
#[derive(Debug)]
pub(super) struct Bulletin {
    out: mpsc::Sender<News>,
    waiting: Vec<News>,
    lost_notes: u32,
}

impl Bulletin {
    pub(super) fn new(out: mpsc::Sender<News>) -> Self {
        Self {
            out,
            waiting: Vec::new(),
            lost_notes: 0,
        }
    }

    /// Tells something now, or as soon as there is room.
    pub(super) fn tell(&mut self, news: News) {
        let notes = self.waiting.iter().filter(|it| is_note(it)).count();
        if is_note(&news) && notes >= MOST_NOTES {
            self.lost_notes = self.lost_notes.saturating_add(1);
        } else {
            self.waiting.retain(|old| !is_void(old, &news));
            self.waiting.push(news);
        }
        self.flush();
    }

    /// Tells what waits, as far as there is room.
    pub(super) fn flush(&mut self) {
        while let Some(next) = self.next() {
            match self.out.try_send(next) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(back)) => {
                    self.waiting.insert(0, back);
                    return;
                }
                // The control side is gone only when the process ends.
                Err(mpsc::error::TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }

    fn next(&mut self) -> Option<News> {
        if !self.waiting.is_empty() {
            return Some(self.waiting.remove(0));
        }
        let lost = std::mem::take(&mut self.lost_notes);
        (lost > 0).then(|| {
            let text = format!("{lost} lines of the packet thread were lost");
            let level = Level::Warn;
            News::Note(Note { level, text })
        })
    }

    /// True while something waits for room.
    pub(super) fn is_blocked(&self) -> bool {
        !self.waiting.is_empty()
    }
}

fn is_note(news: &News) -> bool {
    matches!(news, News::Note(_))
}

/// True when `new` says all that `old` did, as it is now.
fn is_void(old: &News, new: &News) -> bool {
    let (News::Tunnel(old), News::Tunnel(new)) = (old, new) else {
        return matches!((old, new), (News::Closed(old), News::Closed(new)) if old == new);
    };
    let is_life = |event: &Event| matches!(event, Event::Connected | Event::Disconnected);
    match (old, new) {
        (Event::Path { path: old, .. }, Event::Path { path: new, .. })
        | (Event::Roamed { path: old, .. }, Event::Roamed { path: new, .. }) => old == new,
        (Event::Mtu(_), Event::Mtu(_))
        | (Event::Rekeyed, Event::Rekeyed)
        | (Event::SecurityMismatch { .. }, Event::SecurityMismatch { .. }) => true,
        (old, new) => is_life(old) && is_life(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::event::{LinkId, PathState};
    use crate::proto::wire::PathId;

    /// Field row C8: control sleeps through a hundred thousand news, and then knows how things stand.
    #[test]
    fn news_that_nobody_reads_are_few_and_the_last_ones_are_not_lost() {
        let (out, mut read) = mpsc::channel(CHANNEL);
        let mut bulletin = Bulletin::new(out);
        let states = [PathState::Suspect, PathState::Up, PathState::Dead];
        let paths: Vec<PathId> = PathId::all().collect();
        for number in 0..100_000 {
            bulletin.tell(News::Tunnel(Event::Path {
                path: paths[number % paths.len()],
                link: None,
                state: states[number % states.len()],
                remote: None,
            }));
            let text = format!("line {number}");
            let level = Level::Info;
            bulletin.tell(News::Note(Note { level, text }));
            assert!(bulletin.waiting.len() <= MOST_NOTES + paths.len());
        }
        bulletin.tell(News::Closed(LinkId(3)));
        assert!(bulletin.is_blocked());
        let mut last = vec![None; paths.len()];
        let (mut closed, mut lost) = (false, false);
        while let Ok(news) = read.try_recv() {
            match news {
                News::Tunnel(Event::Path { path, state, .. }) => last[path.index()] = Some(state),
                News::Tunnel(_) => {}
                News::Closed(link) => closed |= link == LinkId(3),
                News::Note(note) => lost |= note.text.ends_with("were lost"),
            }
            bulletin.flush();
        }
        assert!(!bulletin.is_blocked() && closed && lost);
        for (index, last) in last.into_iter().enumerate() {
            let newest = (0..100_000).rev().find(|it| it % paths.len() == index);
            assert_eq!(last, Some(states[newest.unwrap() % states.len()]));
        }
    }
}
