"""A variational autoencoder of images with Bernoulli latents: a sigmoid belief network.

    f(z) = −log p(x | z),    q(z | x) = Πₙ Bernoulli(θₙ(x)),    log α = (0, φ),    θ = sigmoid(φ)

φ comes from an encoder D-`encoder`-N, the pixels' logits from a decoder N-`decoder`-D, by default
both linear; the decoder is the encoder mirrored, unless it has layers of its own.  The decoder
reads the weight of category 1, which is the bit itself at a vertex and the relaxed bit off the
vertices.  The prior is uniform, or its logits are learnt.

`kl` says how KL(q ‖ p) enters: in closed form, as log q(z) − log p(z) in f itself, or as an
estimator's own relaxation of it.  With `samples` = m > 1 the objective is the bound of m samples,
E −log 1/m Σᵢ p(x, zᵢ)/q(zᵢ | x), which is sampled.

Encoder and decoder are trained for `steps` steps before anything is measured, with a leave-one-out
score function; the trained state is kept in the cache folder.  What is measured is a fixed batch
of `points` held-out images, the first or the one of number `batch`.

Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein, "REBAR: low-variance, unbiased gradient estimates
for discrete latent variable models", 2017, arXiv 1703.07370, who train 200 latents with linear
networks, and with two layers of 200 tanh units; here it is eight by default, which can be summed
over.
"""

from dataclasses import dataclass

from gradest.knobs import AtLeast1

from ._codes import Bits
from ._networks import Layers, widths
from ._vae import VAE


@dataclass(eq=False)
class BernoulliVAE(VAE):
    latents: AtLeast1 = 8
    encoder: Layers = "linear"

    @property
    def encoding(self) -> tuple[int, ...]:
        return widths(self.encoder)

    @property
    def coding(self) -> Bits:
        return Bits(self.latents)
