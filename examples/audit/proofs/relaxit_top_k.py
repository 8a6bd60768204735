import torch
from relaxit.distributions import GumbelSoftmaxTopK

torch.manual_seed(0)
logits = torch.tensor([0.0, 3.0]).expand(100_000, 2)
z = GumbelSoftmaxTopK(logits=logits).sample()
pi = logits[0].softmax(0)
print(
    f"frequency {z[:, 1].mean():.3f}, softmax(logits) {pi[1]:.3f}, "
    f"softmax(probs) {pi.softmax(0)[1]:.3f}"
)
