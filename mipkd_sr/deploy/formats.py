"""How each format is written, by its own tool, which is imported as it is needed: they are extras.

Every function takes the network (fused, in evaluation mode, on the CPU), the file, and the plan.
"""

from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mipkd_sr.archs.exported_arch import Size
from mipkd_sr.deploy.shapes import Limits, Padded, channels_of, with_transposed_shuffles
from mipkd_sr.runtime.checkpoint import save_atomically
from mipkd_sr.runtime.errors import RunError


class Plan(NamedTuple):
    """What a file is to be: see ``mipkd_sr.deploy.exporting.export``."""

    size: Size | None
    half: bool
    limits: Limits | None
    metadata: dict[str, str]
    weights: dict[str, Tensor]
    layout: str


class _Half(nn.Module):
    """A network whose arithmetic is of half precision, its images of single."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = deepcopy(net).half()

    def forward(self, lq: Tensor) -> Tensor:
        return self.net(lq.half()).float()


class _Levels(nn.Module):
    """A network that gives values of 0 to 255, as Core ML's images have."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, lq: Tensor) -> Tensor:
        return (self.net(lq) * 255).clamp(0, 255)


def onnx(net: nn.Module, file: Path, plan: Plan) -> None:
    """Input ``lq``, output ``sr``. Networks with windows take one image, and keep the multiples of the window."""
    assert plan.limits is not None
    dimension: Any = torch.export.Dim
    size, window = plan.size, plan.limits.multiple if plan.limits.windows else 0
    free: dict[int, Any] = {}
    if size is None and window:  # the example is neither square nor what a network was made for
        size, free = (2 * window, 3 * window), {2: window * dimension('h', min=2), 3: window * dimension('w', min=2)}
    elif size is None:
        size, free = (131, 97), dict.fromkeys((0, 2, 3), dimension.DYNAMIC)
    images = 1 if window or plan.size else 2  # with one image some networks would be for one alone
    lq = torch.rand(images, channels_of(net), *size)
    wrapped = net if window or plan.size else Padded(net, plan.limits)
    torch.onnx.export(
        _Half(wrapped) if plan.half else wrapped,
        (lq,),
        str(file),
        input_names=['lq'],
        output_names=['sr'],
        dynamic_shapes=(free,) if free else None,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    library = import_module('onnx')
    model = library.load(str(file))
    library.helper.set_model_props(model, plan.metadata)
    for node in model.graph.node:  # where in the Python files each is from
        del node.metadata_props[:]
    library.save(model, str(file))


def openvino(net: nn.Module, file: Path, plan: Plan) -> None:
    """OpenVINO's form of the ONNX file, the weights beside it in ``.bin``."""
    library = import_module('openvino')
    between = file.with_name('between.onnx')
    onnx(net, between, plan._replace(half=False))
    model = library.convert_model(str(between))
    for key, value in plan.metadata.items():
        model.set_rt_info(value, key)
    library.save_model(model, str(file), compress_to_fp16=plan.half)
    between.unlink()


def ncnn(net: nn.Module, file: Path, plan: Plan) -> None:
    """By pnnx; the weights are beside it in ``.bin``. Its operators take any size that the network takes."""
    assert plan.limits is not None
    tool = import_module('pnnx')
    first, second = ([torch.rand(1, channels_of(net), *map(plan.limits.fit, size))] for size in ((48, 64), (80, 56)))
    trace = file.with_name(f'{file.name.removesuffix(".ncnn.param")}.pt')
    tool.export(net, str(trace), inputs=tuple(first), inputs2=tuple(second), fp16=plan.half)


def litert(net: nn.Module, file: Path, plan: Plan) -> None:
    """Images stand with their channels last, as phones have them; pixel shuffles are transposed convolutions."""
    tool = import_module('litert_torch')
    assert plan.size is not None
    last = tool.to_channel_last_io(with_transposed_shuffles(deepcopy(net)), args=[0], outputs=[0]).eval()
    tool.convert(last, (torch.rand(1, *plan.size, channels_of(net)),)).export(str(file))
    if plan.half:
        quantizer, types = import_module('ai_edge_quantizer.quantizer'), import_module('ai_edge_quantizer.qtyping')
        half = types.OpQuantizationConfig(
            weight_tensor_config=types.TensorQuantizationConfig(num_bits=16, dtype=types.TensorDataType.FLOAT),
            compute_precision=types.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        )
        work = quantizer.Quantizer(str(file))
        work.update_quantization_recipe('.*', types.TFLOperationName.ALL_SUPPORTED, half, 'float_casting')
        work.quantize().export_model(str(file), overwrite=True)


def coreml(net: nn.Module, file: Path, plan: Plan) -> None:
    """An ML program whose input and output are RGB images of 8 bits. Nothing but macOS runs it."""
    tool = import_module('coremltools')
    assert plan.size is not None
    channels = channels_of(net)
    layout = tool.colorlayout.RGB if channels == 3 else tool.colorlayout.GRAYSCALE
    shape = (1, channels, *plan.size)
    traced = torch.jit.trace(_Levels(net).eval(), torch.rand(shape))
    model = tool.convert(
        traced,
        convert_to='mlprogram',
        inputs=[tool.ImageType('lq', shape=shape, scale=1 / 255, color_layout=layout)],
        outputs=[tool.ImageType('sr', color_layout=layout)],
        minimum_deployment_target=tool.target.iOS16,
        compute_precision=tool.precision.FLOAT16 if plan.half else tool.precision.FLOAT32,
    )
    model.user_defined_metadata.update(plan.metadata)
    model.save(str(file))


def safetensors(net: nn.Module, file: Path, plan: Plan) -> None:
    """The weights alone, in the layout."""
    from safetensors.torch import save

    file.write_bytes(
        save(_weights(plan), plan.metadata)
    )  # its own save_file makes a file that its owner alone may read


def pth(net: nn.Module, file: Path, plan: Plan) -> None:
    """BasicSR's form, ``{'params': weights}``, or the weights alone in another layout."""
    save_atomically({'params': _weights(plan)} if plan.layout == 'basicsr' else _weights(plan), file)


def _weights(plan: Plan) -> dict[str, Tensor]:
    return {name: value.half() if plan.half else value for name, value in plan.weights.items()}


def check_spec(file: Path, plan: Plan) -> str:
    """See that a file which no runtime here runs holds what it must; returns what was seen.

    Raises:
        RunError: If it does not.
    """
    if file.suffix != '.mlpackage':
        return f'{len(plan.weights)} tensors'
    assert plan.size is not None
    assert plan.limits is not None
    tool = import_module('coremltools')
    spec = tool.models.MLModel(str(file), skip_model_load=True).get_spec()
    images = [*spec.description.input, *spec.description.output]
    sides = [(image.type.imageType.height, image.type.imageType.width) for image in images]
    if sides != [plan.size, tuple(side * plan.limits.scale for side in plan.size)]:
        raise RunError(f'{file.name} is for images of {sides}, not of {plan.size}; not written.')
    return 'specification as asked for; run it on macOS'
