import storch
import torch
from storch.method import ScoreFunction
from torch.distributions import OneHotCategorical

logits = torch.tensor([0.5, -0.3, 0.1], dtype=torch.float64, requires_grad=True)
f = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
(truth,) = torch.autograd.grad(logits.softmax(0) @ f, logits)
mean = torch.zeros(3, dtype=torch.float64)
for k in range(3):  # all outcomes of one sample
    method = ScoreFunction("z", n_samples=1, baseline_factory="moving_average")
    method.sampling_method.set_mc_sample(lambda *_, k=k: torch.eye(3).double()[k : k + 1])
    z = method(OneHotCategorical(logits=logits))
    storch.add_cost((z * f).sum(-1), "f")
    storch.backward()
    mean += logits.softmax(0)[k].detach() * logits.grad
    logits.grad = None
print("mean / truth:", (mean / truth).tolist())
