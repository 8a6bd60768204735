"""A language model that is rewarded by a verifier, for contexts from easy to hard.

    f(z) = 1 − r(z),    r(z) = Πₙ 1{zₙ = tₙ}    or    r(z) = 1/N Σₙ Π_{m ≤ n} 1{zₘ = tₘ}

for N tokens of K words and one right answer t in each of B contexts: the reward is one for the
right answer and zero for all others, or the share of the tokens before the first mistake.  A
verifier reads only texts, so that both are black boxes.

The contexts differ in how hard they are: in each the right answer has the probability that
`pass_rates` says.  log α is normalised; the seed decides which words are right, how the log
probability of the answer is shared among its tokens, and the probabilities of the other words.  A
group of samples of one context has rewards that are mostly equal where the pass rate is near 0 or
1, so that dividing by their standard deviation weighs contexts.

With `best_of` = k > 1 the cost is that of the best of k texts, for "correct" 1 − pass@k.

The tokens are independent of each other, unlike a language model's, so that E f is exact:

    E r = Πₙ πₙ(tₙ)    or    1/N Σₙ Π_{m ≤ n} πₘ(tₘ)

Shao et al., "DeepSeekMath: pushing the limits of mathematical reasoning in open language models",
2024, arXiv 2402.03300; Lambert et al., "Tülu 3: pushing frontiers in open language model
post-training", 2024, arXiv 2411.15124, which names such rewards verifiable.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gradest import Cost, Problem, Task
from gradest.errors import KnobError
from gradest.knobs import AtLeast1, AtLeast2, Probability


@dataclass(eq=False)
class VerifiableReward(Task):
    relaxable: ClassVar[bool] = False
    pass_rates: tuple[Probability, ...] = (0.8, 0.4, 0.1, 0.02)
    tokens: AtLeast1 = 3
    words: AtLeast2 = 4
    reward: Literal["correct", "prefix"] = "correct"
    best_of: AtLeast1 = 1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pass_rates:
            raise KnobError(f"{self.name}: expected a pass rate for each context, got none")

    def problem(self, batch: Any = None) -> Problem:
        def cost(z: Tensor) -> Tensor:  # [B, ..., N, K] -> [B, ...]
            answer = self._answers.reshape(len(z), *[1] * (z.ndim - 3), self.tokens, 1)
            right = z.gather(-1, answer.expand(*z.shape[:-1], 1)).squeeze(-1)  # [B, ..., N]
            return 1 - self._reward(right.cumprod(-1))

        f = Cost(cost, samples=self.best_of, objective="minimum")
        return Problem(self._logits, f)

    def expectation(self, logits: Tensor) -> Tensor:
        answer = self._answers.unsqueeze(-1)  # [B, N, 1]
        log_p = logits.log_softmax(-1).gather(-1, answer).squeeze(-1)  # [B, N]
        # E (1 − r) as −(eˣ − 1): the difference would cancel where a context is easy.
        return self._reward(-log_p.cumsum(-1).expm1())

    def _reward(self, prefixes: Tensor) -> Tensor:
        """The reward from whether each prefix is right: [..., N] -> [...]."""
        return prefixes[..., -1] if self.reward == "correct" else prefixes.mean(-1)

    @cached_property
    def _answers(self) -> Tensor:
        """t: [B, N]."""
        draws = torch.Generator().manual_seed(self.seed)
        return torch.randint(self.words, (len(self.pass_rates), self.tokens), generator=draws)

    @property
    def _logits(self) -> Tensor:
        """log α: [B, N, K]."""
        draws = torch.Generator().manual_seed(self.seed + 1)
        normal = {"generator": draws, "dtype": torch.float64}
        shape = (len(self.pass_rates), self.tokens)
        share = torch.randn(shape, **normal).softmax(-1)
        answer = torch.tensor(self.pass_rates, dtype=torch.float64).log().unsqueeze(-1) * share
        others = torch.randn(*shape, self.words, **normal)
        others = others.scatter(-1, self._answers.unsqueeze(-1), -torch.inf).log_softmax(-1)
        others = others + (-answer.expm1()).log().unsqueeze(-1)
        return others.scatter(-1, self._answers.unsqueeze(-1), answer.unsqueeze(-1))  # [B, N, K]
