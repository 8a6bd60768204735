import storch
import torch
from storch.method import ScoreFunctionWOR
from torch.distributions import OneHotCategorical

torch.manual_seed(0)
logits = torch.tensor([0.5, -0.3, 0.1], requires_grad=True)
for _ in range(3):
    z = ScoreFunctionWOR("z", k=2)(OneHotCategorical(logits=logits))
    storch.add_cost((z * torch.tensor([1.0, 2.0, 4.0])).sum(-1), "f")
    storch.backward()
    print(logits.grad.tolist())
