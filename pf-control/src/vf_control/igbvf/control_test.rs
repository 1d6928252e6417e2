//! The handshake and the events against a PF that behaves and one that does not.

use super::super::fake_pf::{FakePf, Mood};
use super::*;
use crate::vf_control::igbvf::registers::*;
use std::time::Duration;

const MAC: [u8; 6] = [0x02, 0x4e, 0x50, 0x12, 0x34, 0];

fn config() -> VfConfig {
    VfConfig { mtu: 1500, multicast: vec![], vlans: vec![] }
}

fn quick() -> Timing {
    Timing {
        poll: Duration::from_micros(10),
        exchange: Duration::from_millis(20),
        init: Duration::from_millis(100),
    }
}

fn vf(mood: Mood) -> (FakePf, IgbVf<FakePf>) {
    let pf = FakePf::default();
    pf.with(|pf| {
        pf.mood = mood;
        pf.mac = Some(MAC);
        pf.link = true;
    });
    (pf.clone(), IgbVf::with_timing(pf, quick()))
}

#[test]
fn init_resets_greets_and_configures() {
    let (pf, mut vf) = vf(Mood::Well);
    let config = VfConfig { vlans: vec![7], ..config() };
    assert_eq!(vf.init(&config), Ok(VfIdentity { mac: Some(MacAddr(MAC)) }));
    pf.with(|pf| {
        assert_eq!(pf.resets, 1);
        assert_eq!(pf.messages[0].0, MSG_RESET);
        assert!(pf.messages.contains(&(MSG_LPE, 1522)));
        assert!(pf.messages.contains(&(MSG_VLAN | VLAN_ADD, 7)));
        assert_eq!(pf.flags & VFU, 0, "the mailbox is left free");
    });
    assert!(vf.link_up());
    assert_eq!(vf.poll_event(), None);
}

#[test]
fn queues_of_the_last_user_are_off_before_the_pf_enables_the_vf() {
    let (pf, mut vf) = vf(Mood::Well);
    vf.init(&config()).unwrap();
    pf.with(|pf| {
        let first = |wanted: u32| pf.writes.iter().position(|(offset, _)| *offset == wanted);
        let greeting = first(VMBMEM);
        for queue in 0..QUEUES {
            for register in [RXDCTL, TXDCTL] {
                assert!(pf.writes.contains(&(register + 0x100 * queue, 0)));
                assert!(first(register + 0x100 * queue) < greeting);
            }
        }
    });
}

#[test]
fn stale_flags_and_a_pending_ping_are_not_taken_for_the_reply() {
    let (pf, mut vf) = vf(Mood::Well);
    pf.with(|pf| {
        pf.put(&[0x100]);
        pf.flags |= RSTD | PFACK;
    });
    assert!(vf.init(&config()).is_ok());
    assert_eq!(vf.poll_event(), None);
}

#[test]
fn reset_nack_means_no_address_but_is_no_failure() {
    let (pf, mut vf) = vf(Mood::Well);
    pf.with(|pf| pf.mac = None);
    assert_eq!(vf.init(&config()), Ok(VfIdentity { mac: None }));
}

#[test]
fn a_refused_message_is_named() {
    let (_pf, mut vf) = vf(Mood::Refuses(MSG_LPE));
    assert_eq!(vf.init(&config()), Err(VfControlError::Refused { message: "SET_LPE" }));
}

#[test]
fn lost_ack_missing_reply_and_kept_mailbox_end_at_the_deadline() {
    for mood in [Mood::LosesAck, Mood::NeverReplies, Mood::KeepsMailbox] {
        let (_pf, mut vf) = vf(mood);
        let started = Instant::now();
        let error = vf.init(&config()).unwrap_err();
        assert!(
            matches!(error, VfControlError::TimedOut { step: "VF_RESET", .. }),
            "{mood:?}: {error}"
        );
        assert!(started.elapsed() < Duration::from_secs(1), "{mood:?}");
    }
}

#[test]
fn a_pf_reset_in_the_middle_starts_the_handshake_again() {
    let (pf, mut vf) = vf(Mood::ResetsOnMessage);
    assert_eq!(vf.init(&config()), Ok(VfIdentity { mac: Some(MacAddr(MAC)) }));
    pf.with(|pf| assert_eq!(pf.resets, 2));
    assert_eq!(vf.poll_event(), None, "the reset was dealt with");
}

#[test]
fn a_pf_that_stays_in_reset_ends_at_the_deadline() {
    let (pf, mut vf) = vf(Mood::Well);
    pf.with(|pf| pf.reset_reads = u32::MAX);
    assert!(matches!(vf.init(&config()), Err(VfControlError::TimedOut { .. })));
}

#[test]
fn a_ping_before_the_reply_is_passed_over() {
    let (_pf, mut vf) = vf(Mood::PingsFirst);
    assert!(vf.init(&config()).is_ok());
}

#[test]
fn removal_is_seen_and_told_once() {
    let (pf, mut vf) = vf(Mood::Well);
    vf.init(&config()).unwrap();
    pf.with(|pf| pf.mood = Mood::Removed);
    assert_eq!(vf.poll_event(), Some(VfEvent::Gone));
    assert_eq!(vf.poll_event(), None);
    assert!(!vf.link_up());
    assert_eq!(vf.init(&config()), Err(VfControlError::Gone));
}

#[test]
fn a_pf_reset_is_told_as_begun_and_done() {
    let (pf, mut vf) = vf(Mood::Well);
    vf.init(&config()).unwrap();
    pf.with(|pf| {
        pf.cts = false;
        pf.reset_reads = 2;
    });
    assert_eq!(vf.poll_event(), Some(VfEvent::ResetBegan));
    assert_eq!(vf.poll_event(), None);
    assert_eq!(vf.poll_event(), Some(VfEvent::ResetDone));
    assert_eq!(vf.poll_event(), None);
    assert!(vf.init(&config()).is_ok());
}

#[test]
fn a_reset_that_nobody_watched_is_told_by_its_trace() {
    let (pf, mut vf) = vf(Mood::Well);
    vf.init(&config()).unwrap();
    pf.with(|pf| pf.flags |= RSTD);
    assert_eq!(vf.poll_event(), Some(VfEvent::ResetBegan));
    assert_eq!(vf.poll_event(), Some(VfEvent::ResetDone));
    assert_eq!(vf.poll_event(), None);
}

#[test]
fn a_ping_without_clear_to_send_means_reset_and_one_with_it_nothing() {
    let (pf, mut vf) = vf(Mood::Well);
    vf.init(&config()).unwrap();
    pf.with(|pf| pf.put(&[0x100 | MSG_CTS]));
    assert_eq!(vf.poll_event(), None);
    pf.with(|pf| {
        pf.put(&[0x100]);
        pf.reset_reads = 3;
    });
    // The ping is not looked at while the reset goes on.
    assert_eq!(vf.poll_event(), Some(VfEvent::ResetBegan));
    assert_eq!(vf.poll_event(), None);
    assert_eq!(vf.poll_event(), None);
    assert_eq!(vf.poll_event(), Some(VfEvent::ResetDone));
    vf.init(&config()).unwrap();
    pf.with(|pf| pf.put(&[0x100]));
    assert_eq!(vf.poll_event(), Some(VfEvent::ResetBegan));
    assert_eq!(vf.poll_event(), Some(VfEvent::ResetDone));
}

#[test]
fn link_changes_are_told() {
    let (pf, mut vf) = vf(Mood::Well);
    vf.init(&config()).unwrap();
    pf.with(|pf| pf.link = false);
    assert_eq!(vf.poll_event(), Some(VfEvent::LinkChanged { up: false }));
    assert_eq!(vf.poll_event(), None);
}

#[test]
fn force_quiesce_resets_even_if_the_mailbox_is_stuck() {
    let (pf, mut vf) = vf(Mood::Well);
    vf.init(&config()).unwrap();
    pf.with(|pf| pf.mood = Mood::KeepsMailbox);
    vf.force_quiesce();
    pf.with(|pf| assert_eq!(pf.resets, 2));
}

#[test]
fn rearm_enables_the_mailbox_vector_only() {
    let (pf, mut vf) = vf(Mood::Well);
    vf.rearm();
    pf.with(|pf| assert_eq!(pf.writes, [(VTEIMS, 4)]));
}

#[test]
fn vlans_follow_the_configuration() {
    let (pf, mut vf) = vf(Mood::Well);
    vf.init(&VfConfig { vlans: vec![5, 6], ..config() }).unwrap();
    pf.with(|pf| pf.messages.clear());
    vf.reconfigure(&VfConfig { vlans: vec![6, 8], ..config() }).unwrap();
    pf.with(|pf| {
        let vlans: Vec<_> =
            pf.messages.iter().filter(|(first, _)| first & MSG_CODE == MSG_VLAN).collect();
        assert_eq!(vlans, [&(MSG_VLAN | VLAN_ADD, 8), &(MSG_VLAN, 5)]);
    });
}

#[test]
fn more_groups_than_the_filter_holds_mean_all_multicast() {
    let (pf, mut vf) = vf(Mood::Well);
    let groups = |n: u8| (0..n).map(|i| MacAddr([1, 0, 0x5e, 0, 0, i])).collect();
    vf.init(&VfConfig { multicast: groups(30), ..config() }).unwrap();
    pf.with(|pf| assert_eq!(pf.messages.last().unwrap().0, MSG_MULTICAST | 30 << 16));
    vf.reconfigure(&VfConfig { multicast: groups(31), ..config() }).unwrap();
    pf.with(|pf| assert_eq!(pf.messages.last().unwrap().0, MSG_PROMISC | PROMISC_MULTICAST));
    vf.reconfigure(&config()).unwrap();
    pf.with(|pf| assert_eq!(pf.messages.last().unwrap().0, MSG_PROMISC));
}

#[test]
fn hash_matches_the_datasheet_s_example_range() {
    assert_eq!(multicast_hash(&MacAddr([0x01, 0x00, 0x5e, 0x00, 0x00, 0x01])), 0x010);
    assert_eq!(multicast_hash(&MacAddr([0x33, 0x33, 0, 0, 0xab, 0xcd])), 0xcda);
}

#[test]
fn nonsense_is_refused_before_anything_is_written() {
    let (pf, mut vf) = vf(Mood::Well);
    for config in [
        VfConfig { mtu: 67, ..config() },
        VfConfig { vlans: vec![4095], ..config() },
        VfConfig { multicast: vec![MacAddr([2, 0, 0, 0, 0, 1])], ..config() },
    ] {
        assert!(matches!(vf.init(&config), Err(VfControlError::Config(_))));
    }
    pf.with(|pf| assert!(pf.writes.is_empty()));
}

#[test]
fn counters_are_read() {
    let (_pf, vf) = vf(Mood::Well);
    assert_eq!(vf.stats(), VfStats { rx_frames: 7, tx_bytes: 9, ..VfStats::default() });
}
