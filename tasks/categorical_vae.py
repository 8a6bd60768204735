"""A variational autoencoder of images with categorical latents.

    f(z) = −log p(x | z),    z ~ q(z | x) = Πₙ Cat(αₙ(x)),    p(z) = Πₙ Cat(zₙ)

so that E f + KL(q(z | x) ‖ p) is the negative ELBO of a data point and every gradient is the
discrete ELBO's.  log α comes from an encoder D-`encoder`-(N × K), the pixels' logits from a decoder
(N × K)-`decoder`-D.  Without `encoder` there is one layer of `hidden` units; the decoder is the
encoder mirrored, unless it has layers of its own.  The prior is uniform, or its logits are learnt.
Off the vertices the decoder reads the relaxed code in place of the one-hot one.

`kl` says how the divergence enters: in closed form, as log q(z) − log p(z) in f itself, or as an
estimator's own relaxation of it.  With `samples` = m > 1 the objective is the bound of m samples,
E −log 1/m Σᵢ p(x, zᵢ)/q(zᵢ | x), which is sampled.

Encoder and decoder are trained for `steps` steps before anything is measured, with a leave-one-out
score function, which favours no relaxation; the trained state is kept in the cache folder.  What
is measured is a fixed batch of `points` held-out images, the first or the one of number `batch`.

The architectures are those of Jang, Gu & Poole, "Categorical reparameterization with
Gumbel-softmax", 2017, arXiv 1611.01144, at the size of the handwritten digits by default; the bound
is that of Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016,
arXiv 1509.00519.
"""

from dataclasses import dataclass

from gradest.knobs import AtLeast1, AtLeast2

from ._codes import Categories
from ._networks import Layers, widths
from ._vae import VAE


@dataclass(eq=False)
class CategoricalVAE(VAE):
    categories: AtLeast2 = 8
    hidden: AtLeast1 = 64
    encoder: Layers | None = None

    @property
    def encoding(self) -> tuple[int, ...]:
        return (self.hidden,) if self.encoder is None else widths(self.encoder)

    @property
    def coding(self) -> Categories:
        return Categories(self.latents, self.categories)
