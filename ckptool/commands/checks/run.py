"""Files x rules -> Report. Headers of all files first, then one pass over the bytes of each that needs one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import PurePath

from ckptool.commands.checks import RULES, Rule, rule_named
from ckptool.commands.checks.bases import Bases
from ckptool.commands.checks.case import Case, Found, asked_by
from ckptool.commands.checks.finding import Finding, Outcome, Report, Verdict
from ckptool.commands.checks.lock import LOCK, section_of
from ckptool.commands.checks.lock_file import Section, read_lock, write_lock
from ckptool.commands.checks.paths import Target, find_targets
from ckptool.commands.checks.policy import Policy
from ckptool.commands.checks.settings import SELECT, Allow
from ckptool.commands.checks.values import Wanted, measure, work
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import ChangedError, CkptError, UnreadableError, UsageError
from ckptool.core.format import Format
from ckptool.storage.paths import relative
from ckptool.values.shared import agree, is_share

Progress = Callable[[int, int], None]
_OF_COMPANIONS = ("readable", "unsafe-pickle")
_OFF, _NOT_ASKED = "off", "not asked for"  # why a rule does not look at a file


def run_checks(
    paths: Sequence[PurePath | str],
    policy: Policy | None = None,
    *,
    rules: Collection[str] | None = None,
    threads: int = 2,
    progress: Progress | None = None,
    update_lock: bool = False,
) -> Report:
    """Check checkpoints against a policy.

    Args:
        paths: files and folders; folders are searched through, shards of one checkpoint are taken together.
        policy: what must hold beyond what always must.
        rules: only these; None for all that the policy does not turn off.
        threads: how many at most.
        progress: called with (bytes read, bytes to read).
        update_lock: write what is found into the lock files instead of comparing.

    Raises:
        UsageError: there is nothing to check, no such rule, none of the rules is asked for, or no lock to update.
        CkptError: what the policy names cannot be used: a base checkpoint, a model, a lock file; or a checked file
            changes meanwhile. What is wrong with a checked file is a finding.

    Example:
        >>> report = run_checks(["fixtures/training.ckpt"])
        >>> [(finding.rule, finding.level) for finding in report.findings]
        [('facts', 'warning'), ('wrapper', 'warning'), ('leftover', 'warning')]
    """
    started = time.perf_counter()
    policy = policy or Policy()
    chosen = [rule for name, rule in RULES.items() if rules is None or rule_named(name).name in _named(rules)]
    run = _Run(policy, chosen, threads, update_lock)
    cases = [run.case(target) for target in find_targets(paths)]
    if update_lock and not any(case.settings.get(LOCK) for case in cases):
        raise UsageError(
            "the policy names no lock file", hint='lock = "weights.lock" in ckptool.toml', path=policy.file
        )
    if rules is not None:
        run.require_asked(cases)
    asked = "check", [*map(str, paths)], policy, [rule.name for rule in chosen], update_lock
    agree(asked, (case.checkpoint for case in cases))
    run.read(cases, progress)
    if is_share():  # whoever has all results says what the rules find
        run.rules = [rule for rule in run.rules if rule.shares]
    findings = [finding for case in cases for finding in run.findings(case)]
    if not is_share():
        findings += run.unused()
        run.write_locks()
    ran = {outcome.rule for outcome in run.outcomes if outcome.status != "skipped"}
    ran |= _named(rules or ())  # what was asked for is shown, also where it had nothing to look at
    return Report(
        tuple(case.name for case in cases),
        tuple(name for name in RULES if name in ran),
        tuple(findings),
        tuple(outcome for outcome in run.outcomes if outcome.rule in ran),
        time.perf_counter() - started,
    )


def _named(rules: Collection[str]) -> set[str]:
    return {rule_named(name).name for name in rules}


class _Run:
    """One run: what files share."""

    def __init__(self, policy: Policy, rules: Sequence[Rule], threads: int, update_lock: bool) -> None:
        self.policy = policy
        self.rules = [rule for rule in rules if rule.name != "policy"]
        self.is_policy_judged = len(self.rules) < len(rules)
        self.threads = threads
        self.update_lock = update_lock
        self.bases = Bases()
        self.outcomes: list[Outcome] = []
        self.used: set[Allow] = set()
        self.judged: dict[Allow, None] = {}  # entries whose rule ran on a file that they are for
        self.locks: dict[PurePath, dict[str, Section]] = {}
        self.changed: set[PurePath] = set()
        self.shorts: dict[str, list[str]] = {}  # what a rule found in the file at hand, in a word or two

    def case(self, target: Target) -> Case:
        settings = self.policy.settings_for(target.path)
        checkpoint, error = Checkpoint(target.path, Format("unreadable"), {}), None
        try:
            checkpoint = target.open(None if (select := settings.get(SELECT)) is None else select.value)
        except ChangedError:
            raise
        except CkptError as problem:
            error = problem
        return Case(target, checkpoint, error, self.policy, settings, self.bases, self.threads, used=self.used)

    def skips(self, rule: Rule, case: Case) -> str:
        """Why a rule does not look at a file; "" if it does."""
        level = case.settings.levels.get(rule.name)
        if level is not None and level.value == "off":
            return _OFF
        if rule.needs and not any(case.settings.get(key) for key in rule.needs):
            return _NOT_ASKED
        if case.error is not None and not rule.anyway:
            return "unreadable"
        if rule.name == "shards" and not case.target.is_sharded:
            return "not sharded"
        if rule.name == "ranks" and case.checkpoint.ranks is None:
            return "not of ranks"
        if case.target.is_companion and rule.name not in _OF_COMPANIONS:
            return "beside the weights"
        return ""

    def require_asked(self, cases: Sequence[Case]) -> None:
        """Refuses rules that were named, if the policy lets none of them look at a file.

        Raises:
            UsageError: the policy does not set what they need, or turns them off.
        """
        reasons = {rule: {self.skips(rule, case) for case in cases} for rule in self.rules}
        if not reasons or any(found - {_OFF, _NOT_ASKED} for found in reasons.values()):
            return
        rule, found = next(iter(reasons.items()))
        if _OFF in found:
            what, hint = "is off in the policy", f'levels.{rule.name} = "{rule.level}", or leave out --rule'
        else:
            needs = " or ".join(key.name for key in rule.needs)
            what, hint = f"needs {needs} in the policy", f"ckptool check --explain {rule.name}"
        raise UsageError(f"nothing to check: the rule {rule.name} {what}", hint=hint, path=self.policy.file)

    def read(self, cases: Sequence[Case], progress: Progress | None) -> None:
        """The pass over the bytes of all files. A file that cannot be read to its end is unreadable from here on."""
        wanted = [self._wanted(case) for case in cases]
        total = sum(work(case.checkpoint, want) for case, want in zip(cases, wanted, strict=True))
        done = 0

        def step(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            if progress is not None:
                progress(min(done, total), total)

        for case, want in zip(cases, wanted, strict=True):
            if want != Wanted():
                try:
                    case.values = measure(case.checkpoint, want, self.threads, step)
                except ChangedError:
                    raise
                except UnreadableError as error:
                    case.error = error

    def _wanted(self, case: Case) -> Wanted:
        names = {rule.name for rule in self.rules if not self.skips(rule, case)}
        return Wanted("nonfinite" in names, "dead" in names, "lock" in names, "facts" in names)

    def findings(self, case: Case) -> list[Finding]:
        """What all rules find in one file, in the order of the registry."""
        found: dict[str, list[Finding]] = {}
        outcomes: dict[str, Outcome] = {}
        rules = self.rules
        readable = RULES["readable"]
        if case.error is not None and readable not in rules:  # no rule can judge the file: that is said
            rules = [readable, *rules]
        # shards may say better than readable why a checkpoint cannot be opened
        for rule in sorted(rules, key=lambda rule: rule.name != "shards"):
            why = self.skips(rule, case)
            if not why:
                found[rule.name], why = self._looked(rule, case)
            if not why and not (rule.name == "lock" and self.update_lock):
                self.judged.update(dict.fromkeys(entry for entry in case.settings.allow if entry.rule == rule.name))
            texts = ", ".join(dict.fromkeys(self.shorts.pop(rule.name, ())))
            status: Verdict = "skipped" if why else "found" if found[rule.name] else "ok"
            outcomes[rule.name] = Outcome(case.name, rule.name, status, why or texts)
        self.outcomes += (outcomes[rule.name] for rule in rules)
        return [finding for rule in rules for finding in found.get(rule.name, ())]

    def _looked(self, rule: Rule, case: Case) -> tuple[list[Finding], str]:
        """What one rule finds in one file; why it could not look, if so."""
        if rule.name == "lock" and (done := self._prepare_lock(case)):
            self.shorts[rule.name] = [done]
            return [], ""
        try:
            found = list(rule.function(case))
        except ChangedError:
            raise
        except UnreadableError as error:
            if error.path is not None and error.path not in (*case.checkpoint.paths, case.target.path):
                raise  # of a checkpoint that the policy names
            case.error = error
            broken = [] if rule.name == "readable" else list(RULES["readable"].function(case))
            return [self._finding(RULES["readable"], case, each) for each in broken], "unreadable"
        if case.error is not None and not found and rule.name != "readable":
            return [], "unreadable"
        self.shorts[rule.name] = [each.short or "found" for each in found]
        return [self._finding(rule, case, each) for each in found], ""

    def _finding(self, rule: Rule, case: Case, found: Found) -> Finding:
        setting = case.settings.levels.get(rule.name)
        level = setting.value if setting is not None and setting.value != "off" else found.level or rule.level
        place = found.place or (setting.place if setting is not None else None)
        return Finding(rule.name, level, case.name, found.message, found.keys, found.details, found.help, place)

    # ---------------------------------------------------------------------------------------------- the lock

    def _prepare_lock(self, case: Case) -> str:
        """Gives the rule its section; or, if locks are to be written, puts what was found there, and says so."""
        setting = case.settings.get(LOCK)
        assert setting is not None  # the rule needs it
        with asked_by(setting):
            path = case.path_of(setting.value)
            if path not in self.locks:
                self.locks[path] = {**read_lock(path)}
        name = relative(case.target.path, path.parent).as_posix()
        case.locked = self.locks[path].get(name)
        if not self.update_lock:
            return ""
        section = section_of(case)
        if case.locked == section:
            return "up to date"
        self.locks[path][name] = section
        self.changed.add(path)
        return "written"

    def write_locks(self) -> None:
        for path in sorted(self.changed):
            write_lock(path, self.locks[path])

    # ---------------------------------------------------------------------------------------------- allow-lists

    def unused(self) -> Iterator[Finding]:
        """Parts of the policy that have no effect."""
        rule, level = RULES["policy"], self.policy.settings.levels.get("policy")
        if not self.is_policy_judged or (level is not None and level.value == "off"):
            return
        file = str(self.policy.file)
        every = list(rule.function([entry for entry in self.judged if entry not in self.used], self.policy))
        if self.judged or every:
            text = f"{len(every):,} unused" if every else ""
            self.outcomes.append(Outcome(file, rule.name, "found" if every else "ok", text))
        for found in every:
            worth = level.value if level is not None and level.value != "off" else rule.level
            yield Finding(rule.name, worth, file, found.message, help=found.help, policy=found.place)
