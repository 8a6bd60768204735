import torch
from relaxit.distributions import GaussianRelaxedBernoulli, HardConcrete, RebarRelaxation

torch.manual_seed(0)
three = torch.full((3,), 0.5)
constants = (torch.tensor(x) for x in (0.5, 1.1, -0.1))
print(HardConcrete(three, *constants).rsample().tolist())
print(RebarRelaxation(three, torch.tensor(0.5)).rsample().tolist())
print(GaussianRelaxedBernoulli(three, torch.tensor(0.2)).rsample().tolist())
