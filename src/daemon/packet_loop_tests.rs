use super::*;

#[test]
fn a_thread_that_hangs_or_panics_does_not_keep_the_host() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let hanging = std::thread::spawn(move || -> Result<(), String> {
        let _ = held.recv();
        Ok(())
    });
    let limit = Duration::from_millis(50);
    let error = runtime.block_on(end_of(hanging, limit)).unwrap_err();
    assert!(error.contains("did not end"), "{error}");
    // The runtime goes although the thread still hangs.
    runtime.shutdown_background();
    drop(release);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let patience = Duration::from_secs(5);
    let thread = |end: fn() -> Result<u8, String>| std::thread::spawn(end);
    let end = |body| runtime.block_on(end_of(thread(body), patience));
    assert_eq!(end(|| Ok(7)), Ok(7));
    assert_eq!(end(|| Err("broken".to_owned())), Err("broken".to_owned()));
    assert!(end(|| panic!("on purpose")).unwrap_err().contains("bug"));
}
