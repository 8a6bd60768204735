"""The conformance battery: tests of the contract and the claims of a plugin.

The battery has its own problems: asymmetric, curved within a latent and coupled between latents, so
that no symmetry hides an error.  Exact laws are tested exactly, under fixed seeds.  A statistical
law has two parts: whether there is a deviation that chance does not explain, and if there is none,
whether the measurement was sharp enough to show one.
"""

from collections.abc import Iterator

from gradest.checks.battery import FALSE_ALARM, LOOKS, SHARP, Subject
from gradest.checks.contract_laws import CONTRACT_LAWS
from gradest.checks.divergence_law import DIVERGENCE_LAWS
from gradest.checks.mean_laws import MEAN_LAWS
from gradest.checks.model_laws import MODEL_LAWS
from gradest.checks.result import Begin, Finding, ignore_start, passed, run_laws
from gradest.checks.symmetry_laws import SYMMETRY_LAWS
from gradest.checks.task_laws import TASK_LAWS
from gradest.contracts import Estimator, Model, Task
from gradest.knobs import build
from gradest.support import described

ESTIMATOR_LAWS = {**CONTRACT_LAWS, **SYMMETRY_LAWS, **DIVERGENCE_LAWS, **MEAN_LAWS}

__all__ = [
    "FALSE_ALARM",
    "LOOKS",
    "SHARP",
    "Finding",
    "check_estimator",
    "check_task",
    "estimator_findings",
    "passed",
    "task_findings",
]


def check_estimator(cls: type[Estimator]) -> list[Finding]:
    """Test the laws of the contract and the claims of the class, with its default knobs."""
    return list(estimator_findings(cls))


def check_task(cls: type[Task]) -> list[Finding]:
    """Test the laws of the contract on the problem that the default knobs give."""
    return list(task_findings(cls))


def estimator_findings(cls: type[Estimator], begin: Begin = ignore_start) -> Iterator[Finding]:
    """The findings of `check_estimator`, one by one; `begin` is called with each law before it."""
    try:
        subject = Subject(cls)
    except (Exception, SystemExit) as error:
        yield Finding("builds", "failed", described(error))
        return
    yield from (Finding("applies", "skipped", reason) for reason in subject.skipped)
    if not subject.tasks:
        yield Finding("applies", "failed", "the estimator applies to none of the test problems")
        return
    yield from run_laws(ESTIMATOR_LAWS, subject, begin=begin)


def task_findings(cls: type[Task], begin: Begin = ignore_start) -> Iterator[Finding]:
    """The findings of `check_task`, one by one; `begin` is called with each law before it."""
    try:
        task = build(cls, {})
        problem = task.problem()
    except (Exception, SystemExit) as error:
        yield Finding("builds", "failed", described(error))
        return
    laws = TASK_LAWS | MODEL_LAWS if isinstance(task, Model) else TASK_LAWS
    yield from run_laws(laws, task, problem, begin=begin)
