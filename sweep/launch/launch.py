"""Run the trials of a launch: plan them, make their bases, train them, and wait for what another launch trains."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from sweep import planned
from sweep.engines.options import LaunchOptions
from sweep.launch.alone import with_speeds
from sweep.launch.plan import Plan, about_data, make_plan, skipped, summary
from sweep.launch.progress import progress_bar
from sweep.packs.pack import Pack
from sweep.packs.rows import tracking_mode
from sweep.packs.train_pack import pretrain, record_failure
from sweep.record import Record, mixtures
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store, writing
from sweep.tasks.options import TaskOptions
from sweep.text import counted

log = logging.getLogger(__name__)


class TooManyFailuresError(RuntimeError):
    """The sweep was stopped because more of its trials failed than ``max_failures`` allows."""


def run(trials: Sequence[ResolvedTrial], store: Store, options: LaunchOptions) -> list[Record]:
    """Train what is not yet finished, each distinct trial once.

    Trials that another launch is training are left to it; their records are awaited at the end, and what it
    did not finish, being killed for example, is trained here.

    Returns:
        The record of every trial, in order. A trial that fails is a record with ``status`` ``failed`` or
        ``diverged``; it stops no other.

    Raises:
        TooManyFailuresError: more than ``options.max_failures`` trials failed in this launch.
        UnwritableError: the sweep's folder takes no more.

    """
    store.recover_records()
    plan = make_plan(trials, store, options)
    if len(trials) > 1:
        _report(plan, trials, store)
    for note in about_data(plan.trials):
        log.info("%s", note)
    for trial in trials:
        store.trial_folder(trial).mkdir(parents=True, exist_ok=True)  # lets status list trials that have not started
    records = plan.records | _execute(plan, store, options)
    while elsewhere := [trial for trial in trials if trial.id not in records]:
        names = ", ".join(dict.fromkeys(trial.label for trial in elsewhere[:3]))
        log.info("another launch is training %d of the trials (%s …); waiting for it", len(elsewhere), names)
        store.wait_for(elsewhere)
        store.recover_records()
        again = replace(options, retry_failed=False)
        plan = make_plan(elsewhere, store, again)
        records |= plan.records | _execute(plan, store, again)
    for line in mixtures(records.values()):
        log.warning("trials of this sweep differ in their environment: %s", line)
    return [records[trial.id] for trial in trials]


def _report(plan: Plan, trials: Sequence[ResolvedTrial], store: Store) -> None:
    others = store.count_other_trials(trials)
    log.info(summary(plan, trials) + (f" ({others} more in this folder have other settings)" if others else ""))
    for line in skipped(plan):
        log.info(line)
    for fault in plan.unmeasured:
        log.warning("the planner could not measure a pack, so its trials train one by one: %s", fault)


def _execute(plan: Plan, store: Store, options: LaunchOptions) -> dict[str, Record]:
    if not plan.packs:
        return {}
    with writing(store.folder):
        planned.add(store.folder, ((pack.steps, {one.label: one.flat() for one in pack.trials}) for pack in plan.packs))
    mode = tracking_mode(plan.packs[0].trials[0])
    steps = sum(len(pack.trials) * pack.steps for pack in plan.packs)
    records: dict[str, Record] = {}
    packs = []
    for pack, error in _with_bases(plan.packs):
        if error is None:
            packs.append(pack)
        else:
            records |= {record.trial_id: record for record in record_failure(pack.trials, store, error)}
    if options.speed == "alone" and plan.engine.is_here:
        packs = with_speeds(packs, plan)
    with (
        progress_bar(f"training {counted(len(plan.trials), 'trial')}", steps) as bar,
        closing(plan.engine.run(packs, store, mode, plan.workers, bar.advance)) as batches,
    ):
        for batch in batches:
            records |= {record.trial_id: record for record in batch}
            errors = [record.error["message"] for record in records.values() if record.error]
            bar.say(f"{len(records)} done" + (f", {len(errors)} of them failed" if errors else ""))
            if options.max_failures is not None and len(errors) > options.max_failures:
                raise TooManyFailuresError(
                    f"stopped: {counted(len(errors), 'trial')} failed, and max_failures={options.max_failures}; "
                    f"the last error was: {errors[-1]}"
                )
    return records


def _with_bases(packs: Sequence[Pack]) -> Iterator[tuple[Pack, Exception | None]]:
    """Every pack once its base is there, or with the error that kept it from being made."""
    errors: dict[TaskOptions, Exception | None] = {}
    for pack in packs:
        first = pack.trials[0]
        if first.task not in errors:
            errors[first.task] = _make_base(first)
        yield pack, errors[first.task]


def _make_base(trial: ResolvedTrial) -> Exception | None:
    """Make sure that the base of ``trial`` is there; returns the error that a faulty task or model raised."""
    pretraining = trial.task.build(trial.cache_folder).pretraining
    with progress_bar(f"pre-training {trial.task.name}", pretraining.steps if pretraining else 0) as bar:
        try:
            pretrain(trial, lambda step: bar.advance())
        except OSError:  # the cache cannot be read or written: no fault of this base
            raise
        except Exception as error:
            return error
    return None
