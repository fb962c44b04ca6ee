//! What was decided, one page each: the decision, why, what it costs, and what would change it.
//!
//! A page is changed when the code teaches otherwise, with the measurement that taught it.

macro_rules! pages {
    ($($name:ident),* $(,)?) => { $(
        #[doc = include_str!(concat!(stringify!($name), ".md"))]
        pub mod $name {}
    )* };
}

pages! {
    a_close_names_the_journals_end,
    a_full_disk_refuses_before,
    a_joiner_asks_its_source,
    a_shared_volume_goes_to_who_asks,
    a_shutdown_waits_for_users,
    a_snapshot_is_a_cut,
    a_turn_begins_when_all_is_sealed,
    a_turn_ends_with_its_lease,
    bare_io_uring_under_the_data_path,
    checksum_tree,
    checksums_of_blocks,
    credits_between_peers,
    devices_of_the_host,
    discard_makes_zero_or_nothing,
    dropped_layers_are_garbage,
    durable_before_acknowledged,
    guests_sockets_outlive_the_daemon,
    imports_are_a_test,
    journal_with_payload,
    letters_between_shards,
    lost_journal_header,
    openings_have_numbers,
    pgs_of_a_volume_are_a_prefix,
    pure_machines_two_drivers,
    repair_by_checksum,
    rust_version,
    scrub_compares_replicas,
    the_catalog_is_under_raft,
    tokens_are_signed,
    two_connections_to_a_node,
    vhost_user_of_our_own,
    volumes_come_to_where_they_are_used,
    whole_chunks_to_fresh_slots,
    windows_are_in_the_records,
}
