import torch
from relaxit.distributions import DecoupledStraightThroughGumbelSoftmax

logits = torch.tensor([0.0, 1.0, 3.0]).expand(100_000, 3)
for temperature in (0.1, 1.0, 10.0):
    torch.manual_seed(0)
    z = DecoupledStraightThroughGumbelSoftmax(temperature, 1.0, logits=logits).sample()
    print(
        temperature, z.mean(0).tolist(), "tempered:", (logits[0] / temperature).softmax(0).tolist()
    )
