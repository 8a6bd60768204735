"""The conformance battery: does a plugin keep its contract, and are its claims true?

The problems are the battery's own: asymmetric, curved within a latent and coupled between latents,
so that no symmetry hides a mistake.  What holds exactly is tested exactly, under fixed seeds.  A
statistical law asks two questions: is there a deviation that chance does not explain, and if not,
was the measurement sharp enough to show one?
"""

from gradest.checks.contract_laws import CONTRACT_LAWS
from gradest.checks.divergence_law import DIVERGENCE_LAWS
from gradest.checks.finding import Finding, findings_of, passed, told
from gradest.checks.mean_laws import MEAN_LAWS
from gradest.checks.model_laws import MODEL_LAWS
from gradest.checks.subject import FALSE_ALARM, LOOKS, SHARP, Subject
from gradest.checks.symmetry_laws import SYMMETRY_LAWS
from gradest.checks.task_laws import TASK_LAWS
from gradest.contracts import Estimator, Model, Task
from gradest.knobs import build

ESTIMATOR_LAWS = {**CONTRACT_LAWS, **SYMMETRY_LAWS, **DIVERGENCE_LAWS, **MEAN_LAWS}

__all__ = ["FALSE_ALARM", "LOOKS", "SHARP", "Finding", "check_estimator", "check_task", "passed"]


def check_estimator(cls: type[Estimator]) -> list[Finding]:
    """Test the contract's laws and the claims of the class, with its default knobs."""
    try:
        subject = Subject(cls)
    except Exception as error:
        return [Finding("builds", "failed", told(error))]
    skipped = [Finding("applies", "skipped", reason) for reason in subject.skipped]
    if not subject.tasks:
        return [*skipped, Finding("applies", "failed", "to no problem of the battery")]
    return skipped + findings_of(ESTIMATOR_LAWS, subject)


def check_task(cls: type[Task]) -> list[Finding]:
    """Test the contract's laws on the problem that the default knobs give."""
    try:
        task = build(cls, {})
        problem = task.problem()
    except Exception as error:
        return [Finding("builds", "failed", told(error))]
    laws = TASK_LAWS | MODEL_LAWS if isinstance(task, Model) else TASK_LAWS
    return findings_of(laws, task, problem)
