"""The feature prior mixer of MiPKD (https://arxiv.org/abs/2404.02573, Section 3.2 of its ICLR 2025 version)."""

from torch import Tensor, nn

from mipkd_sr.distill.masks import MASKS, draw_mask, random_mask
from mipkd_sr.runtime.ranks import BatchDraws

ENCODERS = ('separate', 'shared', 'none')
KERNELS = {'conv': 3, 'mlp': 1}


def adapter(width_in: int, width_out: int) -> nn.Module:
    """Brings a feature map (B x ``width_in`` x H x W) to another width by a learned 1 x 1; nothing if equal."""
    return nn.Identity() if width_in == width_out else nn.Conv2d(width_in, width_out, 1)


def _layers(width_in: int, width_out: int, kernel: int, depth: int) -> nn.Sequential:
    """``depth`` convolutions with ReLUs between them; the widths change in the first."""
    layers: list[nn.Module] = [nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2)]
    for _ in range(depth - 1):
        layers += [nn.ReLU(inplace=True), nn.Conv2d(width_out, width_out, kernel, padding=kernel // 2)]
    return nn.Sequential(*layers)


class FeaturePriorMixer(nn.Module):
    """Mixes the student's and the teacher's feature map of one distillation position in a latent space.

    ``Z_S = Enc_S(F_S)``, ``Z_T = Enc_T(F_T)``, ``F_E = Dec(Z_S * (1 - M) + Z_T * M)`` with M in {0, 1}^(L x H x W).

    Args:
        student_width: Channels of F_S.
        teacher_width: Channels of F_T and F_E.
        latent_width: Channels L of the latent space.
        latent_depth: Convolutions in each encoder and in the decoder.
        encoder: 'separate': Enc_S and Enc_T; 'shared': one for both, after a 1 x 1 that brings F_S to F_T's width where
            they differ; 'none': no encoders and no decoder, F_S (after such a 1 x 1) and F_T are mixed as they are.
        layer: 'conv' (3 x 3) or 'mlp' (1 x 1).
        mask: Name of the mask, see ``mipkd_sr.distill.masks``.
        teacher_ratio: Part of the latent elements that are the teacher's, in [0, 1].
    """

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        latent_width: int,
        latent_depth: int = 1,
        encoder: str = 'separate',
        layer: str = 'conv',
        mask: str = 'random',
        teacher_ratio: float = 0.25,
    ) -> None:
        super().__init__()
        kernel = KERNELS[layer]
        if encoder == 'separate':
            self.encoder_s: nn.Module = _layers(student_width, latent_width, kernel, latent_depth)
            self.encoder_t: nn.Module = _layers(teacher_width, latent_width, kernel, latent_depth)
            self.decoder: nn.Module = _layers(latent_width, teacher_width, kernel, latent_depth)
        elif encoder == 'shared':
            self.encoder_t = _layers(teacher_width, latent_width, kernel, latent_depth)
            self.encoder_s = nn.Sequential(adapter(student_width, teacher_width), self.encoder_t)
            self.decoder = _layers(latent_width, teacher_width, kernel, latent_depth)
        else:
            self.encoder_s = adapter(student_width, teacher_width)
            self.encoder_t = nn.Identity()
            self.decoder = nn.Identity()
        self.latent_width = latent_width if encoder != 'none' else teacher_width
        self.mask = MASKS[mask]
        self.teacher_ratio = teacher_ratio

    def draw(self, feature_t: Tensor, draws: BatchDraws) -> Tensor | None:
        """The random mask for such a feature map, drawn in advance; None for another mask."""
        shape = (len(feature_t), self.latent_width, *feature_t.shape[2:])
        return draw_mask(shape, self.teacher_ratio, draws) if self.mask is random_mask else None

    def forward(
        self, feature_s: Tensor, feature_t: Tensor, draws: BatchDraws | Tensor | None, restore: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Mix F_S (B x C_S x H x W) and F_T (B x C_T x H x W) by what ``draw`` gave, or by random numbers for it.

        Returns:
            F_E, and, with ``restore``, ``Dec(Enc_T(F_T))`` for the auto-encoder loss; both B x C_T x H x W.
        """
        latent_s, latent_t = self.encoder_s(feature_s), self.encoder_t(feature_t)
        if isinstance(draws, Tensor):
            mask = draws.to(latent_t.dtype)
        else:
            mask = self.mask(latent_s, latent_t, self.teacher_ratio, draws)  # type: ignore[arg-type]  # None: not needed
        mixed = self.decoder(latent_s * (1 - mask) + latent_t * mask)
        return mixed, self.decoder(latent_t) if restore else None
