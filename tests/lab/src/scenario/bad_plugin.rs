//! Plugin files that must not reach a guest: each attach is refused with an error that names the
//! file and the fault, the guest stays on its emulated NIC and the VF goes back to the pool.

use super::Context;
use super::guest::{Guest, GuestOptions};
use super::pool;
use anyhow::{Context as _, Result, ensure};
use std::path::Path;

type Damage = fn(&mut Vec<u8>);

/// Name, what is done to the good image, and a word that the error must hold.
const CASES: [(&str, Damage, &str); 4] = [
    ("truncated", |image| image.truncate(image.len() / 2), ""),
    ("tampered", |image| tamper(image), "sha"),
    ("not an image", |image| *image = b"#!/bin/sh\nexit 0\n".to_vec(), ""),
    ("empty", Vec::clear, ""),
];

pub(crate) fn run(context: &Context) -> Result<()> {
    let directory = Path::new("/run/npa/bad-plugins");
    std::fs::create_dir_all(directory)?;
    let good = std::fs::read(context.plugins().join("igbvf.npa")).context("the good image")?;
    let mut options = GuestOptions::new(context).named("bad-plugin");
    options.plugins = directory.to_owned();
    let mut guest = Guest::launch(options)?;
    guest.expect_traffic()?;

    for (name, damage, word) in CASES {
        let mut image = good.clone();
        damage(&mut image);
        std::fs::write(directory.join("igbvf.npa"), &image)?;
        let error = guest.ctl_refused(&["attach", "net0"])?;
        ensure!(error.contains("igbvf"), "{name}: the error does not name the image: {error}");
        ensure!(error.to_lowercase().contains(word), "{name}: no word of {word:?}: {error}");
        guest.expect_mode("emulated")?;
        guest.expect_traffic().context(name)?;
        guest.expect_alive()?;
        pool::expect_all_free().context(name)?;
    }
    std::fs::remove_file(directory.join("igbvf.npa"))?;
    let error = guest.ctl_refused(&["attach", "net0"])?;
    ensure!(error.contains("igbvf"), "missing: the error does not name the image: {error}");
    pool::expect_all_free()?;

    std::fs::write(directory.join("igbvf.npa"), &good)?;
    guest.attach().context("the good image after all the bad ones")?;
    guest.expect_traffic()?;
    guest.detach()?;
    pool::expect_all_free()
}

/// Changes one byte of code, far from the header.
fn tamper(image: &mut [u8]) {
    let at = image
        .windows(8)
        .position(|window| window == b"NPAPLUG\x01")
        .map_or(image.len() / 2, |header| header + 0x400);
    if let Some(byte) = image.get_mut(at) {
        *byte ^= 0x01;
    }
}
