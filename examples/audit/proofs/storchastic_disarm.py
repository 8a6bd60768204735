import storch
import torch
from storch.method import DisARM
from torch.distributions import Bernoulli

torch.manual_seed(0)
logits = torch.tensor(0.5).expand(100_000, 1).clone().requires_grad_()  # one estimate each
rows = storch.denote_independent(logits, 0, "rows")
b = DisARM("z")(Bernoulli(logits=rows))
storch.add_cost((b.float() * 3).sum(-1), "f")  # E f = 3 σ(0.5)
storch.backward()
estimates = 100_000 * logits.grad
truth = 3 * torch.tensor(0.5).sigmoid() * torch.tensor(-0.5).sigmoid()
print(f"mean {estimates.mean():.4f} ± {estimates.std() / 100_000**0.5:.4f}, truth {truth:.4f}")
