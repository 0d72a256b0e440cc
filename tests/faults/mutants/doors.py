"""Guards of the gateway, each taken away, beside the test that must see it: what strangers do is in no simulation."""

# ruff: noqa: E501 # a line a mutant

from faults.mutants.catalogue import QUERIES, Edit, Mutant

_MATRIX = "faults/test_authorisation_matrix.py::test_every_route_meets_every_wrong_caller_as_the_table_says_and_changes_nothing"
_ASSERTION = "contracts/test_gateway_callers.py::test_an_assertion_must_be_this_cars_fresh_and_for_this_gateway"
_STRANGERS = "contracts/test_gateway_strangers.py::test_what_a_stranger_says_of_a_lease_leaves_it_and_what_the_gateway_knows_of_it"
_VOID = "contracts/test_gateway_void_tokens.py::test_"
_SIGNED_CLAIMS = "contracts/test_gateway_assertions.py::test_"
_NONSENSE = "contracts/test_gateway_callers.py::test_nonsense_is_refused_as_a_problem"
_ALLOWANCES = "contracts/test_gateway_allowances.py::test_"
_SIGNED = "contracts/test_store.py::test_s3_is_told_length_checksum_and_create_only_under_the_signature[moto]"
_PARTS = "contracts/test_gateway_parts.py::test_"
_UPLOADS = "contracts/test_gateway_uploads.py::test_"
_DECISIONS = "contracts/ledger/test_ledger_decisions.py::test_"
_BOOKS = "contracts/test_credits_archives.py::test_"
_RATES = "contracts/ledger/test_ledger_rates.py::test_"
_CLAIMS = "contracts/ledger/test_ledger_claims.py::test_"
_CONDITIONS = '{"ChecksumSHA256": checksum, "IfNoneMatch": "*"}'


def _without(name: str, file: str, find: str, replace: str, *, within: str = "") -> Mutant:
    return Mutant(name, (Edit(find, replace, within, file),))


DOORS: tuple[tuple[Mutant, str], ...] = (
    # -- assertions
    (_without("an assertion's signature is not checked", "gateway/identity.py", '"verify_exp": False,', '"verify_exp": False, "verify_signature": False,'), _ASSERTION),
    (_without("an assertion says by which algorithm it is signed", "gateway/identity.py", "algorithms=ALGORITHMS", 'algorithms=[jwt.get_unverified_header(assertion)["alg"]]'), _ASSERTION),
    (_without("an assertion for another gateway is taken", "gateway/identity.py", '"verify_nbf": False,', '"verify_nbf": False, "verify_aud": False,'), _ASSERTION),
    (_without("an assertion never expires", "gateway/identity.py", 'if times["exp"] <= at - skew:', "if False:"), _ASSERTION),
    (_without("an assertion lives as long as it likes", "gateway/identity.py", 'if times["exp"] > at + dials.assertion_for.total_seconds() + skew:', "if False:"), _ASSERTION),
    (_without("an assertion may be from the future", "gateway/identity.py", 'if max(times.get("iat", at), times.get("nbf", at)) > at + skew:', "if False:"), _ASSERTION),
    (_without("a car's clock may be ten times as wrong", "gateway/identity.py", "skew, at = dials.clock_skew.total_seconds()", "skew, at = 10 * dials.clock_skew.total_seconds()"), _ASSERTION),
    (_without("a car's clock must be right to the second", "gateway/identity.py", "skew, at = dials.clock_skew.total_seconds()", "skew, at = 0 * dials.clock_skew.total_seconds()"), _ASSERTION),
    (_without("an assertion speaks for another", "gateway/identity.py", 'or name != claims.get("sub") or', "or"), _ASSERTION),
    (_without("an assertion needs no name of its own", "gateway/identity.py", 'if not _JTI.fullmatch(claims["jti"]):', "if False:"), _ASSERTION),
    (_without("an assertion's name may be what no ledger can keep", "gateway/identity.py", '"[!-~]{1,128}"', '"(?s:.){1,128}"'), f"{_SIGNED_CLAIMS}an_assertion_that_no_ledger_could_keep_takes_no_other_cars_token_with_it"),
    (_without("an assertion's instant may be larger than any float", "gateway/identity.py", "number and -_INSTANT_MAX <= seconds <= _INSTANT_MAX  #", "number and float(seconds) < float('inf')  #"), f"{_SIGNED_CLAIMS}whatever_a_car_signs_is_sold_a_token_or_refused_as_a_problem"),
    (_without("an assertion buys any number of tokens", "gateway/tokens.py", "if not await gate.first_uses.ask(assertion):", "if await gate.first_uses.ask(assertion) is None:"), "contracts/test_gateway_callers.py::test_an_assertion_buys_one_token_only"),
    (_without("a revoked car's key is a key", "gateway/gate.py", "None if row.revoked else es256_key(row.public_key_pem)", "es256_key(row.public_key_pem)"), _MATRIX),
    # -- what a car says of itself
    (_without("a car was busy as long as it says", "ledger/migrations/0010_rates.sql", "least(said_s, extract(epoch FROM until - since)::double precision)", "said_s"), f"{_CLAIMS}a_car_was_busy_no_longer_than_it_held_its_lease"),
    (_without("a night was busy as long as its cars say", QUERIES, "least(busy_s, most_s) AS busy_s", "busy_s", within="night_stats"), f"{_CLAIMS}a_car_was_busy_no_longer_than_it_held_its_lease"),
    (_without("results tell any energy", QUERIES, "least(1, h.most_wh / nullif(l.delivered_wh, 0))", "1", within="valid_parts"), f"{_CLAIMS}energy_counts_up_to_what_a_car_can_draw_in_the_time"),
    (_without("a night tells any energy", QUERIES, "least(energy_wh, most_s * %(power_w_max)s / 3600)", "energy_wh", within="night_stats"), f"{_CLAIMS}energy_counts_up_to_what_a_car_can_draw_in_the_time"),
    (_without("a class is as fast as its slowest car says", QUERIES, "percentile_disc(0.5)", "percentile_disc(1)", within="rates"), f"{_CLAIMS}a_class_is_as_fast_as_its_middle_car_says"),
    (_without("who was struck is asked how fast a class is", QUERIES, "WHERE NOT coalesce((SELECT struck_at", "WHERE coalesce((SELECT true OR struck_at", within="rates"), f"{_CLAIMS}a_car_that_was_struck_is_not_asked_how_fast_its_class_is"),
    (_without("a car speaks for the trusted machines", QUERIES, "(r.car_id = 0 OR r.hardware_class <> %(cloud_class)s)", "true", within="rates"), f"{_CLAIMS}a_car_does_not_speak_for_the_trusted_machines"),
    (_without("a car speaks for the trusted machines once it is added up", QUERIES, "(l.car_id = 0 OR l.hardware_class <> %(cloud_class)s)", "true", within="add_up_rates"), f"{_RATES}of_what_is_added_up_too_the_struck_and_who_claims_to_be_a_trusted_machine_have_no_voice"),
    (_without("leases are added up before all have committed", QUERIES, "%(batch)s::interval, clock.at - %(settled_after)s::interval)", "%(batch)s::interval, clock.at)", within="add_up_rates"), f"{_RATES}what_is_added_up_says_the_same_as_the_leases_did"),
    (_without("a round adds up without end", "ledger/rates.py", "if not added or leases >= self._pool.dials.rates_leases:", "if not added:"), f"{_RATES}a_call_that_has_read_its_fill_of_leases_leaves_the_rest_to_the_next"),
    (_without("leases are added up twice", QUERIES, "ended_at > span.since AND", "ended_at >= span.since - interval '1 hour' AND", within="add_up_rates"), f"{_RATES}what_is_added_up_says_the_same_as_the_leases_did"),
    (_without("who speaks for a class is not drawn", QUERIES, "ORDER BY lot, car_id) AS n", "ORDER BY car_id) AS n", within="add_up_rates"), f"{_RATES}a_full_class_is_asked_by_as_many_cars_as_speak_and_tells_the_rows_of_all"),
    (_without("a clock that was ahead has added up for ever", QUERIES, "WHERE a.added_through > clock.at OR", "WHERE", within="start_rates"), f"{_RATES}after_a_clock_was_ahead_and_is_set_right_all_is_added_up_anew"),
    (_without("cars have a voice for every day", QUERIES, "    GROUP BY workload, hardware_class, lot, car_id\n", "    GROUP BY workload, hardware_class, lot, car_id, rows, busy_s\n", within="rates"), f"{_RATES}a_car_has_one_voice_over_all_its_days"),
    # -- what is over
    (_without("a verdict counts while its night is archived", "ledger/past.py", '            fetch(connection, "close_audits", {"night": night})\n', ""), "contracts/ledger/test_ledger_past.py::test_a_verdict_that_comes_while_its_night_is_archived_does_not_count"),
    (_without("a book is recomputed from whatever lies in the store", "owners/archives.py", "        _refuse_changed(self.store, self.key)\n", ""), f"{_BOOKS}an_archive_of_which_a_byte_was_changed_is_no_ground_for_a_book"),
    (_without("a night that goes to the archive meanwhile is lost", "steps/credits.py", 'if cell.files("leases", night) == archived:', "if True:"), f"{_BOOKS}a_night_that_goes_to_the_archive_meanwhile_is_looked_for_there"),
    (_without("a whole night is in memory at once", "owners/spilling.py", "min(_RANGES_MAX, -(-rows // at_a_time))", "1"), f"{_BOOKS}of_an_archived_night_some_shards_at_a_time_are_in_memory"),
    # -- tokens
    (_without("a token's hash is not checked", "gateway/identity.py", "len(raw) != _TOKEN_BYTES or not compare_digest(raw[_BODY_BYTES:], self._mac(body))", "len(raw) != _TOKEN_BYTES"), _MATRIX),
    (_without("a token never expires", "gateway/identity.py", "lives = now.timestamp() < expires and", "lives ="), _MATRIX),
    (_without("a token of any cell opens all", "gateway/identity.py", 'f"{caller} {cell}".encode()', 'f"{caller}".encode()'), _MATRIX),
    (_without("a token of any kind opens all", "gateway/identity.py", 'f"{caller} {cell}".encode()', 'f"{cell}".encode()'), _MATRIX),
    (_without("what was forged once is believed the second time", "gateway/identity.py", "        body = raw[:_BODY_BYTES]\n", "        body = raw[:_BODY_BYTES]\n        if len(raw) == _TOKEN_BYTES:\n            who, expires, telemetry = _BODY.unpack(body)\n            self._claims[token] = Bearer(who, telemetry), expires\n"), "unit/test_gateway.py::test_a_token_that_was_heard_before_is_judged_as_if_it_were_new"),
    (_without("two calls at once are about one lease's objects", "gateway/turns.py", "if thing in self._waiting:", "if False:"), "unit/test_gateway_turns.py::test_those_about_one_thing_go_one_after_the_other_as_they_came"),
    (_without("no token is ever void", "gateway/identity.py", "< expires and void_until.get(bearer.who, 0.0) < expires", "< expires"), _MATRIX),
    (_without("a token that is bought after a withdrawal is void with those before", "gateway/tokens.py", "max(expires_at, gate.tokens_end(known.tokens_void_at) + timedelta(seconds=1))", "expires_at"), f"{_VOID}a_token_that_is_bought_after_a_withdrawal_is_good_whether_the_seller_heard_of_it_or_not"),
    (_without("a token lives from after its car was looked at", "gateway/tokens.py", "expires_at = now + life", "expires_at = gate.clock() + life"), f"{_VOID}a_token_lives_from_before_its_car_was_looked_at"),
    (_without("all clocks are right", "gateway/gate.py", "return at + self.dials.token_for + self.dials.clock_skew", "return at + self.dials.token_for"), f"{_VOID}a_withdrawal_voids_older_tokens_though_the_gateways_clock_is_ahead"),
    (_without("a withdrawal right after another voids nothing that was sold between them", QUERIES, "greatest(fleetbatch.now(), tokens_void_at + interval '1 second')", "fleetbatch.now()", within="void_tokens"), f"{_VOID}what_is_taken_back_right_after_a_withdrawal_voids_a_token_that_was_sold_between_the_two[withdrawn]"),
    (_without("a revocation right after a withdrawal voids nothing that was sold between them", QUERIES, "greatest(fleetbatch.now(), tokens_void_at + interval '1 second')", "fleetbatch.now()", within="revoke_car"), f"{_VOID}what_is_taken_back_right_after_a_withdrawal_voids_a_token_that_was_sold_between_the_two[revoked]"),
    (_without("a withdrawal is announced to nobody", QUERIES, "SELECT pg_notify('fleetbatch_round', '') FROM voided", "SELECT 1 FROM voided", within="void_tokens"), "contracts/test_gateway_callers.py::test_another_gateways_withdrawal_or_a_revocation_voids_a_token_at_once[withdrawn]"),
    (_without("a revocation is announced to nobody", QUERIES, "SELECT pg_notify('fleetbatch_round', '') FROM revoked", "SELECT 1 FROM revoked", within="revoke_car"), "contracts/test_gateway_callers.py::test_another_gateways_withdrawal_or_a_revocation_voids_a_token_at_once[revoked]"),
    (_without("why a car lets go is kept without telemetry consent", "gateway/telemetry.py", 'return msgspec.structs.replace(message, detail="")', "return message"), "contracts/test_gateway_words.py::test_what_a_car_tells_of_its_vehicle_in_words_is_kept_with_its_owners_consent_only[False]"),
    (_without("why a car will not compute is kept without telemetry consent", "gateway/telemetry.py", 'unwilling_reason="", departure_at', "departure_at"), "contracts/test_gateway_words.py::test_what_a_car_tells_of_its_vehicle_in_words_is_kept_with_its_owners_consent_only[False]"),
    (_without("every vehicle may be heard", "gateway/admission.py", "return car, bearer.telemetry", "return car, True"), "contracts/test_gateway_words.py::test_nothing_of_a_vehicle_is_kept_without_its_owners_consent"),
    (_without("an old no said again brings younger tokens back to life", "gateway/owners.py", "max(until, gate.void_until.get(voided, until))", "until"), "contracts/test_gateway_decisions.py::test_an_old_no_said_again_brings_no_newer_void_token_back_to_life"),
    # -- what owners decide
    (_without("an owner decides as often as it likes", "ledger/owners.py", "if change.granted and standing.full_for > timedelta(0):", "if False:"), f"{_DECISIONS}a_chain_is_bounded_by_its_days_whatever_an_owner_says"),
    (Mutant("a full day holds back a withdrawal", (
        Edit("if withdrawn and standing.agreed:", "if False:", file="ledger/owners.py"),
        Edit("if change.granted and standing.full_for > timedelta(0):", "if standing.full_for > timedelta(0):", file="ledger/owners.py"),
    )), f"{_DECISIONS}a_full_day_holds_back_a_yes_and_no_withdrawal"),
    (_without("a no is kept as often as it is said", "ledger/owners.py", "(withdrawn or newest.change == change)", "newest.change == change"), f"{_DECISIONS}a_decision_that_changes_nothing_is_answered_by_the_one_that_stands_and_adds_none"),
    (_without("what changes nothing is kept all the same", "ledger/owners.py", "and (withdrawn or newest.change == change):", "and False:"), f"{_DECISIONS}a_decision_that_changes_nothing_is_answered_by_the_one_that_stands_and_adds_none"),
    (_without("an owner agrees to what nobody knows", "ledger/owners.py", "if change.purpose not in PURPOSES:", "if False:"), f"{_DECISIONS}nothing_is_kept_for_a_purpose_that_nothing_is_done_for"),
    (_without("what nobody knows any more cannot be withdrawn", "ledger/owners.py", "if withdrawn and standing.agreed:", "if False:"), f"{_DECISIONS}what_was_agreed_to_before_it_was_unknown_can_be_withdrawn"),
    # -- whose lease, part, car and object it is
    (_without("an owner decides for any car", "gateway/owners.py", "if row is None or row.owner_id != owner:", "if row is None:"), _MATRIX),
    (_without("any car puts a part under a lease", "gateway/parts.py", "if row.car_id != car or row.fence != request.fence:", "if row.fence != request.fence:"), _MATRIX),
    (Mutant("any car renews a lease, and is told so", (
        Edit("AND l.fence = r.fence AND l.car_id = r.car_id", "AND l.fence = r.fence", "beat"),
        Edit("RETURNING l.shard_id, l.fence, l.car_id, l.expires_at", "RETURNING l.shard_id, l.fence, r.car_id, l.expires_at", "beat"),
    )), _MATRIX),
    (_without("any car renews a lease, and is told no", QUERIES, "AND l.fence = r.fence AND l.car_id = r.car_id", "AND l.fence = r.fence", within="beat"), "contracts/ledger/test_ledger_leases.py::test_beats_of_another_car_or_fence_renew_nothing"),
    (_without("a stranger's beat ends what is known of a lease", "gateway/polls.py", "gate.let_go(beat.lease_id, told=beat.car_id)", "gate.let_go(beat.lease_id)"), f"{_STRANGERS}[beat]"),
    (_without("a stranger's release ends what is known of a lease", "gateway/parts.py", "held = gate.let_go(lease, told=car)", "held = gate.let_go(lease)"), f"{_STRANGERS}[release]"),
    (_without("whoever hears that a lease is over ends what is known of it", "gateway/gate.py", "if held is None or told not in {None, held.car_id}:", "if held is None:"), f"{_STRANGERS}[beat]"),
    (_without("a part's signature is not checked", "gateway/parts.py", "if not signed_by(known.key, request):", "if False:"), f"{_PARTS}the_signature_is_checked_and_kept"),
    (_without("a part may be about what it likes", "gateway/parts.py", "    _refuse_misfit(gate, row, request)\n", ""), f"{_PARTS}a_part_that_cannot_be_is_refused_before_it_is_sent"),
    (_without("whatever is said of delivered row groups is there already", "gateway/parts.py", "    delivered = request.stop <= row.done_through\n", "    delivered = request.stop <= row.done_through\n    if delivered:\n        return PartReply(already=True, url='', headers={})\n"), f"{_PARTS}a_lie_about_an_acknowledged_part_does_not_remove_it"),
    (_without("a URL's signature is not checked", "store/signing.py", "if not hmac.compare_digest(signature, bytes.fromhex(_signature(key, claim, int(claim.expires_at.timestamp())))):", "if not signature:"), _MATRIX),
    (_without("a URL never expires", "store/signing.py", 'return claim if now < claim.expires_at else "expired"', "return claim"), _MATRIX),
    (_without("a URL opens any object", "store/signing.py", r"{claim.method}\n{claim.key}\n", r"{claim.method}\n\n"), _MATRIX),
    (_without("a URL takes any length", "store/signing.py", r"\n{claim.size}\n", r"\n\n"), "contracts/test_store_folder.py::test_a_changed_word_in_a_signed_claim_is_a_forgery"),
    (_without("a PUT takes other bytes than were announced", "gateway/objects.py", "if size != claim.size or sha256 != claim.sha256:", "if False:"), f"{_PARTS}a_put_takes_exactly_what_was_announced_and_once"),
    (_without("a PUT replaces what is there", "gateway/objects.py", "created = await gate.off_loop(store.create, claim.key, body)", "created = await gate.off_loop(store.write, claim.key, body) is None"), f"{_PARTS}a_put_takes_exactly_what_was_announced_and_once"),
    (_without("the length of a PUT to S3 is not signed", "store/s3.py", '"Key": self._full(key), "ContentLength": size}', '"Key": self._full(key)}'), _SIGNED),
    (_without("the checksum of a PUT to S3 is not signed", "store/s3.py", _CONDITIONS, '{"IfNoneMatch": "*"}'), _SIGNED),
    (_without("a PUT to S3 may replace", "store/s3.py", _CONDITIONS, '{"ChecksumSHA256": checksum}'), _SIGNED),
    (_without("no night looks at its store", "store/probing.py", "if lacks := probe(store):", "if lacks := []:"), "contracts/test_store.py::test_no_night_begins_on_a_store_on_which_it_could_not_be_published"),
    (_without("a gateway starts on any store", "gateway/__main__.py", "    tried = _try_out(store)\n", "    tried = True\n"), "contracts/test_gateway_process.py::test_a_store_that_lacks_something_is_refused_at_the_start_with_what_to_do"),
    (_without("a part has as many bytes as its car says", "gateway/arrivals.py", "if size != upload.size or size > size_max:", "if size > size_max:"), f"{_PARTS}a_part_has_as_many_bytes_as_lie_in_the_store_whatever_its_car_says"),
    # -- those who said something in the same moment
    (_without("one bad word spoils what others said with it", "gateway/batching.py", "if len(questions) == 1 or not is_of_some_rows(error):", "if True:"), "contracts/test_gateway_batches.py::test_a_part_that_the_ledger_cannot_hold_costs_no_other_car_its_own"),
    (_without("a ledger that is away is asked for each question alone", "gateway/batching.py", "if len(questions) == 1 or not is_of_some_rows(error):", "if len(questions) == 1:"), "unit/test_gateway.py::test_an_error_of_the_ledger_is_the_answer_to_all_in_the_call_and_the_next_call_is_made"),
    # -- limits
    (_without("an upload is compared in memory, all of it", "store/hashing.py", "if size_bytes <= _PIECE_BYTES:", "if True:"), "contracts/test_arrivals.py::test_a_large_upload_is_compared_with_a_few_mebibytes_of_it_in_memory"),
    (_without("of a large upload the beginning is compared", "store/hashing.py", "range(0, size_bytes, _PIECE_BYTES)", "[0]"), "contracts/test_arrivals.py::test_a_large_upload_that_differs_in_its_last_byte_or_its_length_is_damaged"),
    (Mutant("a body is read whatever its length", (
        Edit('if any(name == b"content-length" and _over(value, limit) for name, value in scope["headers"]):', "if False:", file="gateway/bodies.py"),
        Edit("if given > limit:", "if False:", file="gateway/bodies.py"),
    )), _NONSENSE),
    (_without("a usual message is read whatever its length", "gateway/connection.py", "if len(self._body) > self.gate.dials.message_bytes:", "if False:"), _NONSENSE),
    (_without("a lease stores as much as it likes", "gateway/uploads.py", "len(stops) < self._dials.unconfirmed_max", "True"), f"{_PARTS}a_lease_stores_a_few_parts_and_no_further_one_before_one_is_confirmed"),
    (_without("who asks again for the same part uses up another", "gateway/uploads.py", "return key in stops or ", "return "), f"{_PARTS}who_lost_an_answer_asks_for_the_same_part_as_often_as_it_likes"),
    (_without("any number of slow bodies is awaited", "gateway/admission.py", "if gate.metrics.bodies_awaited >= gate.dials.bodies_awaited_max:", "if False:"), "contracts/test_gateway_bodies.py::test_one_slow_body_too_many_is_sent_away_and_a_quick_one_is_taken"),
    (_without("a car stores as much as it likes, lease by lease", "gateway/uploads.py", "if not over_s:", "over_s = 0.0\n        if True:"), f"{_PARTS}a_car_stores_a_few_parts_that_it_never_confirms_whatever_its_leases"),
    (_without("who confirms a part again and again stores as much as it likes", "gateway/uploads.py", "if self._stops.get(lease, {}).pop(key, None) is not None:", "if True:"), f"{_PARTS}a_part_that_is_confirmed_gives_its_car_one_upload_back_and_only_one"),
    (_without("what is confirmed counts as if it were not", "gateway/uploads.py", "self._of_car.give_back(car)", "pass"), f"{_PARTS}a_part_that_is_confirmed_gives_its_car_one_upload_back_and_only_one"),
    (_without("a large upload is kept in memory", "gateway/objects.py", "if claim.size <= _PIECE_BYTES:", "if True:"), f"{_UPLOADS}a_large_upload_arrives_in_a_file_and_not_in_memory"),
    (_without("one URL is sent to as often as its holder likes", "gateway/objects.py", "if under_way[key] >= gate.dials.puts_at_once_max:", "if False:"), f"{_UPLOADS}an_object_is_sent_twice_at_one_time_and_no_third_time"),
    (_without("a car asks as often as it likes", "gateway/admission.py", '_refuse_over("car", gate.allowance.left_s(car, now=now))', "pass"), "contracts/test_gateway_watch.py::test_a_car_that_asks_too_often_is_told_so"),
    (_without("a refusal that is said again counts again", "gateway/pacing.py", "if self._last.get(car) == lease:", "if False:"), f"{_ALLOWANCES}a_refusal_that_is_said_again_because_its_answer_was_lost_counts_once"),
    (_without("a car that refuses everything is offered more", "gateway/polls.py", "if offers and gate.refusals.used_up_s(car, now=gate.clock()):", "if False:"), f"{_ALLOWANCES}a_car_that_refuses_lease_after_lease_is_offered_nothing_for_a_while"),
    (_without("an owner asks as often as it likes", "gateway/admission.py", '_refuse_over("owner", gate.owner_allowance.left_s(owner, now=now))', "pass"), f"{_ALLOWANCES}an_owner_who_asks_too_often_is_told_so_and_no_other_owner_nor_any_car_is"),
    (_without("owners take every thread", "gateway/admission.py", "if under_way[endpoint.path] >= gate.dials.owner_calls_max:", "if False:"), f"{_ALLOWANCES}owners_at_once_are_bounded_by_kind_so_that_cars_find_a_thread"),
    (_without("a car buys as many tokens as it likes", "gateway/tokens.py", '    if over_s:\n        raise ProblemError(Kind.TOO_MANY_REQUESTS, "this car', '    if False:\n        raise ProblemError(Kind.TOO_MANY_REQUESTS, "this car'), f"{_ALLOWANCES}a_car_that_buys_token_after_token_is_told_so_and_those_beside_it_are_not"),
    (_without("whoever replays an assertion spends its car's tokens", "gateway/tokens.py", "gate.token_allowance.give_back(known.car_id)", "pass"), f"{_ALLOWANCES}whoever_replays_a_cars_assertion_uses_up_none_of_its_tokens"),
    (_without("whoever names a car spends its tokens", "gateway/tokens.py", "    audience = gate.cell", "    gate.token_allowance.left_s(known.car_id, now=gate.clock())\n    audience = gate.cell"), f"{_ALLOWANCES}a_stranger_who_claims_a_cars_id_is_refused_soon_and_the_car_is_not"),
    (_without("what proves nothing is not counted", "gateway/tokens.py", "gate.failures.count(address)", "pass"), f"{_ALLOWANCES}a_stranger_who_claims_a_cars_id_is_refused_soon_and_the_car_is_not"),
    (_without("a liar's neighbours are locked out", "gateway/pacing.py", "if not over or chance < self._dials.failing_heard:", "if not over:"), f"{_ALLOWANCES}an_honest_car_that_shares_a_hostile_address_waits_and_gets_in"),
    (_without("every address is remembered", "gateway/pacing.py", "room = len(self._failed) < self._dials.failing_addresses_max", "room = True"), "unit/test_gateway_addresses.py::test_addresses_beyond_those_that_are_kept_share_one_count"),
)  # fmt: skip
