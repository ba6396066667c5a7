use super::support::*;
use netcombiner_lab::prelude::*;
#[test]
fn zz() {
    case(Setup::default(), |case| -> Outcome {
        let mut c = std::process::Command::new("tcpdump");
        c.args(["-ni","any","-c","60","-w","/tmp/x.pcap"]);
        let mut p = Process::spawn(&case.lab.remote, c)?;
        std::thread::sleep(Duration::from_millis(700));
        let r = case.up();
        println!("{:#}\n{:#}", case.show(Side::Local)?, case.show(Side::Remote)?);
        let _=p.terminate(Duration::from_secs(1));
        r?;
        Ok(())
    });
}
