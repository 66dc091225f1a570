//! The stories: the whole product, as separate processes, against servers, clients and verifiers
//! that others wrote. Each file is named for what it proves and stands alone.
//!
//! Run them with `tests/run`, which installs what they need and says where it is.

// Tests: there is nobody to hand an error to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod a_bank_vouches_for_authorities;
mod a_cloned_disk_is_found_out;
mod a_database_fails_over;
mod a_full_backlog_refuses_and_loses_nothing;
mod a_kek_moves_to_a_key_service;
mod a_key_service_may_be_away;
mod agents_go_on_while_they_are_cut_off;
mod agents_leave_nothing_waiting;
mod agents_need_keep_no_key_on_disk;
mod alerts_open_and_resolve_by_themselves;
mod an_embedded_store_moves_to_a_server;
mod an_older_version_serves_beside_this_one;
mod bad_input_changes_nothing;
mod bench_reports;
mod certificates_and_crls_pass_linters;
mod certificates_verify_with_openssl;
mod configuration_mistakes_are_all_reported;
mod control_planes_share_a_database;
mod control_planes_stand_in_for_each_other;
mod customers_sign_with_their_own_ca;
mod deliveries_follow_their_policy;
mod dev_once_delivers;
mod dev_story_rotation_fails_no_delivery;
mod enrollment_tokens_work_once;
mod every_kek_provider_keeps_the_same_promises;
mod every_method_is_guarded;
mod evicted_agents_get_nothing;
mod faults_lose_nothing;
mod first_delivery_through_nginx;
mod floors;
mod hasty_and_slow_clients_are_survived;
mod held_deliveries_go_out_when_the_cause_is_gone;
mod keys_do_only_what_their_role_says;
mod keys_stay_in_a_token;
mod no_secret_in_plain;
mod nothing_accepted_is_lost_after_kill_9;
mod operators_help_deliveries_by_hand;
mod ordering_keys_hold;
mod parsers_survive_what_others_send;
mod private_addresses_are_refused;
mod probes_tell_what_receivers_think;
mod public_keys_verify_signatures;
mod receipts_are_verified_offline;
mod receiver_configuration_is_pasted;
mod receivers_explain_refusals;
mod refused_certificates_fall_back;
mod revocation_reaches_the_wire;
mod rotations_cost_no_delivery;
mod rotations_survive_kill_9;
mod shipped_units_are_sandboxed;
mod strange_requests_are_refused;
mod suspended_agents_wait_until_they_are_resumed;
mod the_audit_log_tells_who_did_what;
mod the_harness_itself;
mod the_kek_is_replaced_while_deliveries_flow;
mod what_was_forged_or_altered_is_on_record;
mod wrong_kek_changes_nothing;
