"""Upscaling one's own images, and exporting a student."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch
import yaml

from mipkd_sr.api import load_student
from mipkd_sr.archs import build_network
from mipkd_sr.cli import main
from mipkd_sr.data.images import decode
from mipkd_sr.deploy.upscaling import upscale
from mipkd_sr.evaluation.inference import prepare_network
from mipkd_sr.imresize import imresize
from mipkd_sr.options.recipes import SHIPPED_NETWORKS, STUDENT_SCALES, STUDENT_SIZES
from mipkd_sr.runtime.checkpoint import load_file
from tests.conftest import NETWORKS, smooth_image

CPU = torch.device('cpu')


@pytest.fixture
def student(tmp_path: Path):
    """A function that writes a student's option file and checkpoint, and returns the command line that names them."""

    def write(kind: str) -> list[str]:
        opt = {'type': f'Staged{kind}', **NETWORKS[kind], 'upscale': 2}
        if kind == 'SwinIR':  # a block of each kind is enough, and exporting takes long
            opt |= {'depths': [2], 'num_heads': [2]}
        net = build_network(opt)
        torch.nn.init.zeros_(net.conv_last.weight)  # else random: a picture that is in the range
        torch.nn.init.normal_(net.conv_last.weight, std=0.01)
        (tmp_path / 'student.yml').write_text(yaml.safe_dump({'network_g': opt}))
        torch.save({'params': net.state_dict(), 'params_ema': net.state_dict()}, tmp_path / 'student.pth')
        return ['-opt', str(tmp_path / 'student.yml'), '--weights', str(tmp_path / 'student.pth')]

    return write


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.filterwarnings('ignore')  # the exporter's own
def test_onnx_computes_what_torch_does_at_sizes_it_was_not_made_with(kind, student, tmp_path, capsys):
    onnxruntime = pytest.importorskip('onnxruntime')
    arguments = student(kind)
    net = load_student(arguments[3], arguments[1])
    file = tmp_path / 'student.onnx'
    assert main(['export', *arguments, '--out', str(file)]) == 0
    windows = kind == 'SwinIR'
    assert ('multiples of 8' if windows else 'images of any size') in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    for shape in [(1, 3, 16, 16), (1, 3, 40, 24)] if windows else [(1, 3, 16, 24), (2, 3, 31, 9)]:
        lq = torch.rand(shape)
        with torch.no_grad():
            expected = net(lq).numpy()
        assert np.abs(session.run(None, {'lq': lq.numpy()})[0] - expected).max() < 1e-4
    assert not list(tmp_path.glob('.*'))


def test_safetensors_and_pth_hold_the_weights(student, tmp_path):
    load_file_of_safetensors = pytest.importorskip('safetensors.torch').load_file
    arguments = student('EDSR')
    weights = load_student(arguments[3], arguments[1]).state_dict()
    for ending in ('safetensors', 'pth'):
        assert main(['export', *arguments, '--out', str(tmp_path / 'out' / f's.{ending}')]) == 0
    assert load_file(tmp_path / 'out' / 's.pth').keys() == {'params'}
    (tmp_path / 'new').write_text('')
    modes = {(tmp_path / name).stat().st_mode for name in ('new', 'out/s.pth', 'out/s.safetensors')}
    assert len(modes) == 1, 'an exported file may be read by whoever may read a new file'
    for found in (
        load_file_of_safetensors(tmp_path / 'out' / 's.safetensors'),
        load_file(tmp_path / 'out/s.pth')['params'],
    ):
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_what_cannot_be_exported_is_said_in_one_sentence(student, tmp_path, capsys):
    arguments = student('EDSR')
    (tmp_path / 'there.pth').write_text('mine')
    for out, message in (
        ('there.pth', 'is there already'),
        ('student.pt', 'ends in none of .onnx, .xml, .ncnn.param, .tflite, .mlpackage, .safetensors, .pth'),
    ):
        assert main(['export', *arguments, '--out', str(tmp_path / out)]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / 'there.pth').read_text() == 'mine'
    (tmp_path / 'empty.yml').write_text('name: x')
    assert main(['export', '-opt', str(tmp_path / 'empty.yml'), *arguments[2:], '--out', str(tmp_path / 'a.pth')]) == 2
    assert f'{tmp_path}/empty.yml: network_g: is missing' in capsys.readouterr().err


def bicubic(lq: torch.Tensor) -> torch.Tensor:
    return imresize(lq, 2)


def expected_of(image: np.ndarray) -> np.ndarray:
    top = np.iinfo(image.dtype).max
    planes = torch.from_numpy(np.atleast_3d(image) / top).permute(2, 0, 1)
    enlarged = imresize(planes, 2).clamp(0, 1).permute(1, 2, 0).numpy() * top
    return np.round(enlarged).astype(image.dtype).reshape(*enlarged.shape[:2], *image.shape[2:])


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('channels', [0, 3, 4])
def test_images_keep_their_form(dtype, channels):
    image = smooth_image(20, 30, 0)
    image = np.concatenate([image, image[..., :1]], -1)[..., :channels] if channels else image[..., 0]
    image = image.astype(dtype) * (257 if dtype == np.uint16 else 1)
    sr = upscale(bicubic, image, CPU)
    assert sr.dtype == dtype
    assert sr.shape == (40, 60, *image.shape[2:])
    off = np.abs(sr.astype(int) - expected_of(image).astype(int)).max()
    assert off <= (1 if dtype == np.uint8 else 3)  # single against double precision


def test_a_folder_is_upscaled_once(student, tmp_path, capsys):
    arguments, out = student('EDSR'), tmp_path / 'out'
    (tmp_path / 'photos').mkdir()
    for i, ending in enumerate(('png', 'jpg', 'bmp')):
        cv2.imwrite(str(tmp_path / 'photos' / f'p{i}.{ending}'), smooth_image(30 + i, 20, i))
    (tmp_path / 'photos' / 'notes.txt').write_text('no image')
    command = ['upscale', str(tmp_path / 'photos'), '--out', str(out), *arguments, '--tile', '16', '--overlap', '9']
    assert main(command) == 0
    assert '3 image(s) written' in capsys.readouterr().out
    assert {file.name: cv2.imread(str(file)).shape for file in out.iterdir()} == {
        'p0.png': (60, 40, 3),
        'p1.png': (62, 40, 3),
        'p2.png': (64, 40, 3),
    }
    net = load_student(arguments[3], arguments[1])
    whole = upscale(prepare_network(net), cv2.imread(str(tmp_path / 'photos' / 'p0.png'))[..., ::-1], CPU)
    assert np.abs(cv2.imread(str(out / 'p0.png'))[..., ::-1].astype(int) - whole).max() <= 1
    assert main(command) == 0
    assert '0 image(s) written' in (said := capsys.readouterr().out)
    assert '3 were there already' in said
    (out / 'p0.png').write_text('mine')
    (out / 'p1.png').unlink()
    assert main([*command, '--self-ensemble']) == 4  # made by something else: stays, and is not said to be done
    said = capsys.readouterr()
    assert '1 image(s) written' in said.out
    assert said.err.count(f'error: {out}/p0.png is there already, ') == 1
    assert said.err.count(f'error: {out}/p2.png is there already, ') == 1
    assert (out / 'p0.png').read_text() == 'mine'


@pytest.mark.parametrize('size', STUDENT_SIZES)
@pytest.mark.parametrize('scale', STUDENT_SCALES)
def test_a_photograph_is_upscaled_by_the_student_of_the_package(scale, size, tmp_path, capsys):
    hr = skimage.data.astronaut()[:240, 120:360, ::-1].copy()
    lq = imresize(torch.from_numpy(hr / 255).permute(2, 0, 1), 1 / scale).permute(1, 2, 0).numpy()
    cv2.imwrite(str(tmp_path / 'photo.png'), (lq.clip(0, 1) * 255).round().astype(np.uint8))
    out, command = tmp_path / 'out', ['upscale', str(tmp_path / 'photo.png'), '--out', str(tmp_path / 'out')]
    assert main([*command, '--scale', str(scale), '--size', size]) == 0
    capsys.readouterr()
    sr = cv2.imread(str(out / 'photo.png'))
    bicubic = cv2.resize(cv2.imread(str(tmp_path / 'photo.png')), (240, 240), interpolation=cv2.INTER_CUBIC)
    psnr = [skimage.metrics.peak_signal_noise_ratio(hr, image) for image in (sr, bicubic)]
    assert psnr[0] > psnr[1] + 0.7
    file = SHIPPED_NETWORKS / f'student_{size}_x{scale}.pth'
    assert file.stat().st_size < 240_000
    assert load_file(file).keys() == {'params'}
    for arguments in ([], ['--weights', 's.pth'], ['--scale', '2', '--weights', 's.pth']):
        assert main([*command, *arguments]) == 2
        assert 'error: give --scale 2, 3 or 4 for a student of ours' in capsys.readouterr().err


def test_what_cannot_be_upscaled_is_said_in_one_sentence(student, tmp_path, capsys):
    arguments = student('EDSR')
    (tmp_path / 'broken.png').write_text('no image')
    for name, code, message in (
        ('broken.png', 4, 'broken.png cannot be read as an image'),
        ('no.png', 2, 'there is no'),
    ):
        assert main(['upscale', str(tmp_path / name), '--out', str(tmp_path / 'out'), *arguments]) == code
        assert f'error: {message}' in capsys.readouterr().err.replace(f'{tmp_path}/', '')
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.skipif(sys.platform != 'linux', reason="names of bytes are Linux'")
def test_an_image_whose_name_is_no_text_is_upscaled(tmp_path):
    """OpenCV's own reader of files crashes for such names."""
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9.png'))
    file.write_bytes(cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    assert decode(file.read_bytes()).pixels.shape == (8, 8, 3)
    with pytest.raises(ValueError, match='it is not an image'):
        decode(b'')


@pytest.mark.filterwarnings('ignore')  # the exporter's own
def test_a_student_of_one_channel_is_upscaled_with_and_exported(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    own = {'in_chans': 1, 'embed_dim': 12, 'depths': [2], 'num_heads': [2], 'window_size': 8}
    opt = {'type': 'SwinIR', **own, 'upscale': 2, 'upsampler': 'pixelshuffledirect'}
    net = build_network(opt).eval()
    (tmp_path / 'grey.yml').write_text(yaml.safe_dump({'network_g': opt}))
    torch.save({'params': net.state_dict()}, tmp_path / 'grey.pth')
    cv2.imwrite(str(tmp_path / 'photo.png'), smooth_image(16, 24, 0))
    arguments = ['-opt', str(tmp_path / 'grey.yml'), '--weights', str(tmp_path / 'grey.pth')]
    assert main(['upscale', str(tmp_path / 'photo.png'), '--out', str(tmp_path / 'up'), *arguments]) == 0
    assert main(['export', '--to', 'onnx', '--out', str(tmp_path / 'grey'), *arguments]) == 0
    assert 'N x 1 x H x W, grey' in (tmp_path / 'grey.md').read_text()
    lq = torch.rand(1, 1, 16, 24)
    session = onnxruntime.InferenceSession(str(tmp_path / 'grey.onnx'), providers=['CPUExecutionProvider'])
    with torch.no_grad():
        assert np.abs(session.run(None, {'lq': lq.numpy()})[0] - net(lq).numpy()).max() < 1e-4
