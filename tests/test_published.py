"""Weights that others published: laid in place or refused by name, and files that are read without trusting them."""

import copy
import pickle
import random
import re
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from soralab.blocks import stable_diffusion
from soralab.blocks.first_stage import Autoencoder, AutoencoderConfig
from soralab.clip import CLIP, CLIPConfig, openai_layout
from soralab.files import published
from soralab.files.published import Mismatch, export, fetched, fill, read_weights, shape_of, under
from soralab.latent_diffusion import UNet, UNetConfig
from soralab.llava import projector, published_projector
from soralab.vit import ViT, ViTConfig, torchvision_layout


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def randomise(model):
    for seed, value in enumerate(model.parameters()):
        value.copy_(numbers(*value.shape, seed=seed))
    return model


# ------------------------------------------------------------------------------------------------- laying them in place


@torch.no_grad()
def toy():
    """Ours has queries above keys and values; theirs has all three in one, a transposed matrix, and a kernel."""
    ours = nn.ModuleDict({"q": nn.Linear(3, 2), "kv": nn.Linear(3, 4), "out": nn.Linear(2, 5), "norm": nn.LayerNorm(2)})
    layout = {
        "qkv": (ours["q"].weight, ours["kv"].weight), "q.bias": ours["q"].bias,
        "key.bias": ours["kv"].bias[:2], "value.bias": ours["kv"].bias[2:], "out.T": ours["out"].weight.T,
        "kernel": ours["out"].bias[:, None, None], **under("", {"ln": ours["norm"]}),
    }  # fmt: skip
    theirs = {"qkv": numbers(6, 3), "key.bias": numbers(2, seed=1), "value.bias": numbers(2, seed=2), "q.bias":
              numbers(2, seed=3), "out.T": numbers(2, 5, seed=4), "kernel": numbers(5, 1, 1, seed=5), "ln.weight":
              numbers(2, seed=6), "ln.bias": numbers(2, seed=7)}  # fmt: skip
    return ours, layout, theirs


def test_each_weight_goes_to_its_place():
    ours, layout, theirs = toy()
    fill(layout, theirs, "a toy")
    assert torch.equal(torch.cat([ours["q"].weight, ours["kv"].weight]), theirs["qkv"])
    assert torch.equal(ours["kv"].bias, torch.cat([theirs["key.bias"], theirs["value.bias"]]))
    assert torch.equal(ours["out"].weight, theirs["out.T"].T)
    assert torch.equal(ours["out"].bias, theirs["kernel"][:, 0, 0])
    assert torch.equal(ours["norm"].weight, theirs["ln.weight"]) and torch.equal(ours["norm"].bias, theirs["ln.bias"])
    back = export(layout)
    assert all(torch.equal(back[name], value) for name, value in theirs.items()) and len(back) == len(theirs)


def test_what_does_not_fit_is_named_all_of_it_and_nothing_is_changed():
    ours, layout, theirs = toy()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    del theirs["q.bias"], theirs["ln.bias"]
    theirs |= {"extra": numbers(7), "more.of it": numbers(1), "qkv": numbers(6, 4), "ln.weight": torch.ones(2).int()}
    with pytest.raises(Mismatch) as caught:
        fill(layout, theirs, "a toy", "source")
    error = caught.value
    assert error.missing == {"q.bias": [2], "ln.bias": [2]} and error.strange == {"extra": [7], "more.of it": [1]}
    assert error.misshapen == {"qkv": ([6, 4], [6, 3]), "ln.weight": ("int32", "floating point")} and error.matched == 4
    assert str(error) == ("source: lacks q.bias, ln.bias; has extra, more.of it, which a toy has not; qkv is [6, 4]; "
                          "it takes [6, 3]; ln.weight is int32; it takes floating point")  # fmt: skip
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_weights_are_copies_in_our_precision():
    ours, layout, theirs = toy()
    fill(layout, {name: value.half() for name, value in theirs.items()}, "a toy")
    assert ours["q"].weight.dtype == torch.float32
    torch.testing.assert_close(ours["q"].weight.detach(), theirs["qkv"][:2], rtol=1e-3, atol=1e-3)
    fill(layout, theirs, "a toy")
    kept = ours["norm"].weight.clone()
    theirs["ln.weight"].zero_()
    assert torch.equal(ours["norm"].weight, kept)


@pytest.mark.parametrize("state, says", [
    ({}, "^state has no a.weight; it takes the weights of a toy$"),
    ({"a.weight": torch.zeros(2)}, r"a.weight is \[2\]; it takes 2 axes, none of them empty"),
    ({"a.weight": torch.zeros(2, 0)}, r"a.weight is \[2, 0\]; it takes 2 axes, none of them empty"),
])  # fmt: skip
def test_a_weight_that_tells_no_sizes_is_named(state, says):
    with pytest.raises(ValueError, match=says):
        shape_of(state, "a.weight", 2, "a toy")


CLIP_SIZES = {"embed": 6, "context": 5, "vocabulary": 9, "text_width": 64, "text_layers": 2, "head": 64}
MODELS = {  # (model, its layout, what makes it of published weights)
    "ViT": lambda: (ViT(ViTConfig(image=8, dim=12, depth=2, heads=3, classes=5, hidden=7)), torchvision_layout,
                    lambda state: ViT.from_torchvision(state, heads=3)),
    "CLIP": lambda: (CLIP(CLIPConfig(image=8, layers=2, width=64, patch=4, **CLIP_SIZES)), openai_layout,
                     CLIP.from_openai),
    "CLIP, ResNet": lambda: (CLIP(CLIPConfig(image=32, layers=(1, 2, 1, 1), width=8, **CLIP_SIZES)), openai_layout,
                             CLIP.from_openai),
    **{f"U-Net, {name}": lambda code=code, stem=stem, config=config: (
        UNet(UNetConfig.stable_diffusion(**config)), lambda m: stable_diffusion.unet_layout(m, code, stem),
        UNet.from_stable_diffusion)
        for name, code, stem, config in (
            ("official", 0, "model.diffusion_model.", {"width": 32, "context": 24}),
            ("official, alone, nine channels", 0, "", {"width": 32, "context": 24, "channels": 9}),
            ("diffusers", 1, "", {"width": 32, "context": 24}),
            ("diffusers, version 2", 1, "", {"width": 64, "context": 16, "head_dim": 64}))},
    **{f"first stage, {name}": lambda code=code, stem=stem, config=config: (
        Autoencoder(config), lambda m: stable_diffusion.first_stage_layout(m, code, stem),
        Autoencoder.from_stable_diffusion)
        for name, code, stem, config in (
            ("official", 0, "first_stage_model.", AutoencoderConfig.f8(width=32)),
            ("diffusers, kl-f4", 1, "", AutoencoderConfig.f4(width=32)))},
}  # fmt: skip


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_layout_has_every_weight_once_and_each_is_asked_for(make):
    """Out by the layout and in by the loader: the same model, sizes and all. Without any one weight it is refused."""
    model, layout, load = make()
    state = export(layout(randomise(model)))
    assert sum(value.numel() for value in state.values()) == sum(value.numel() for value in model.parameters()) + sum(
        value.numel() for name, value in model.named_buffers() if "running" in name)  # fmt: skip
    again = load(state)
    assert again.config == model.config
    theirs = dict(model.named_parameters())
    assert all(torch.equal(value, theirs[name]) for name, value in again.named_parameters())
    meta = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
    with torch.device("meta"):
        load(meta)
        for name in list(meta)[:: max(len(meta) // 4, 1)]:
            with pytest.raises(ValueError, match=re.escape(name)):
                load({key: value for key, value in meta.items() if key != name})


@pytest.mark.parametrize("stem, layers, inner", [
    ("model.mm_projector", 1, ""), ("model.mm_projector", 2, ("0", "2")), ("mm_projector", 2, ("0", "2")),
    ("multi_modal_projector", 2, ("linear_1", "linear_2")),
    ("model.multi_modal_projector", 2, ("linear_1", "linear_2")),
])  # fmt: skip
def test_llavas_projector_in_its_names(stem, layers, inner):
    W = randomise(projector(6, 8, layers))
    own = under("", {stem: W} if layers == 1 else {f"{stem}.{inner[0]}": W[0], f"{stem}.{inner[1]}": W[2]})
    state = {**own, "model.embed_tokens.weight": numbers(3, 8), "lm_head.weight": numbers(3, 8)}
    Z = numbers(2, 5, 6)
    assert torch.equal(published_projector(state)(Z), W(Z))
    with pytest.raises(ValueError, match="which LLaVA's projector has not"):
        published_projector(state | {f"{stem}.4.weight": numbers(8, 8)})
    state.pop(list(own)[-1])
    with pytest.raises(ValueError, match=f"^state: lacks {list(own)[-1]}$"):
        published_projector(state)


def test_what_holds_no_projector_is_refused():
    with pytest.raises(ValueError, match="state has no name with mm_projector"):
        published_projector({"lm_head.weight": numbers(3, 8)})


# -------------------------------------------------------------------------------------------------------- reading files

STATE = {"a.weight": numbers(4, 3), "a.bias": numbers(4, seed=1).half(), "count": torch.tensor(7)}


@pytest.mark.parametrize("save", [
    lambda state, path: save_file(state, path), torch.save,
    lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    lambda state, path: torch.save({k: nn.Parameter(v, v.is_floating_point()) for k, v in state.items()}, path),
], ids=["safetensors", "state dict", "checkpoint", "parameters"])  # fmt: skip
def test_a_file_is_read_and_its_shapes_alone(save, tmp_path):
    save(STATE, path := tmp_path / "w.bin")
    found, shapes = read_weights(path), read_weights(path, "meta")
    assert found.keys() == shapes.keys() == STATE.keys()
    for name, value in STATE.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype and not found[name].requires_grad
        assert shapes[name].is_meta and (shapes[name].shape, shapes[name].dtype) == (value.shape, value.dtype)


class Harm:
    """What would run as a careless reader reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def zipped(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)


def cut(save, by):
    """A file of STATE that ends too early."""
    def write(path):
        save(STATE, path)
        path.write_bytes(path.read_bytes()[:-by])
    return write  # fmt: skip


def packed_in_part(path):
    """One entry of two is packed, and does not grow; mapped into memory it would be other numbers."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/data/0", random.Random(0).randbytes(10_000), zipfile.ZIP_DEFLATED)


def overlapping(path):
    """Ten names for the same bytes: what holds 10 kB says that it holds 100."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/data/0", bytes(10_000))
        for k in range(1, 10):
            again = copy.copy(archive.getinfo("archive/data/0"))
            again.filename = f"archive/data/{k}"
            archive.filelist.append(again)


def odd_header(kind):
    """A safetensors file of one tensor [8] of a kind, without its bytes."""
    text = b'{"a":{"dtype":"' + kind.encode() + b'","shape":[8],"data_offsets":[0,32]}}'
    return len(text).to_bytes(8, "little") + text


def sparse(path):
    torch.save({"a": torch.eye(3).to_sparse()}, path)


FILES = {
    "nothing": (lambda p: p.write_bytes(b""), "is empty; it takes a safetensors file or a state dict"),
    "text": (lambda p: p.write_text("weights"), "is no file of weights that the course knows"),
    "a login": (lambda p: p.write_text("<!DOCTYPE html><title>Sign in"), "is a web page"),
    "git-lfs": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "a folder": (lambda p: p.mkdir(), "is a folder; it takes a file"),
    "a pickle": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "is a bare pickle"),
    "before 1.6": (lambda p: torch.save(STATE, p, _use_new_zipfile_serialization=False), "is a bare pickle"),
    "another zip": (lambda p: p.write_bytes(b"PK\x05\x06" + bytes(18)), "is no file of weights that the course knows"),
    "harm": (lambda p: torch.save({"a": STATE["count"], "b": Harm(p.with_name("harm"))}, p), "that could run code"),
    "a whole model": (lambda p: torch.save(nn.Linear(2, 2), p), "holds a torch.nn.modules.linear.Linear beside"),
    "torchscript": (lambda p: zipped(p, {"data.pkl": b"", "constants.pkl": b"", "code/a.py": b""}), "is a TorchScript"),
    "some zip": (lambda p: zipped(p, {"readme.md": b"hello"}), "is a zip file without a state dict"),
    "a bomb": (lambda p: zipped(p, {"data.pkl": bytes(10**6)}, zipfile.ZIP_DEFLATED), "would grow as it is unpacked"),
    "code alone": (lambda p: zipped(p, {"data.pkl": b"", "a": b"", "code/a.py": b""}), "is a TorchScript"),
    "its constants": (lambda p: zipped(p, {"data.pkl": b"", "constants.pkl": b""}), "is a TorchScript"),
    "packed in part": (packed_in_part, "would grow as it is unpacked"),
    "overlapping": (overlapping, "would grow as it is unpacked"),
    "no table": (lambda p: zipped(p, {"data.pkl": b"nonsense", "version": b"3\n"}), "is damaged"),
    "cut": (cut(torch.save, 200), "is damaged"),
    "cut safetensors": (cut(lambda s, p: save_file(s, p), 10), "is damaged"),
    "a long head": (lambda p: p.write_bytes((10**15).to_bytes(8, "little") + b"{}"), "is damaged"),
    "a far claim": (lambda p: torch.save({"a": torch.zeros(1).expand(10**10)}, p), "claims 40000000000 bytes"),
    "an unknown kind": (lambda p: p.write_bytes(odd_header("F7")), "is damaged"),
    "too short for its header": (lambda p: p.write_bytes(odd_header("F32")), "is damaged"),
    "sparse": (sparse, "'a' names no plain tensor .Tensor.; it takes tensors by their names"),
    "a number": (lambda p: torch.save({"a": 3}, p), "'a' names no plain tensor .int."),
    "a list": (lambda p: torch.save([STATE["count"]], p), "holds no state dict .list.; it takes"),
    "numbered": (lambda p: torch.save({1: STATE["count"]}, p), ": 1 names no plain tensor"),
}  # fmt: skip


@pytest.mark.parametrize("make, says", FILES.values(), ids=FILES)
def test_what_is_no_file_of_weights_is_told_in_one_line(make, says, tmp_path):
    make(path := tmp_path / "w.pt")
    with pytest.raises(ValueError, match=says) as caught:
        read_weights(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("save", [lambda state, path: save_file(state, path), torch.save], ids=["safetensors", "torch"])
def test_whatever_a_byte_becomes_a_file_is_read_or_refused_in_one_line(save, tmp_path):
    save(STATE, path := tmp_path / "w.bin")
    whole, draw, refused = path.read_bytes(), random.Random(0), 0
    for k in range(150):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 3, 20))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path = tmp_path / f"{k}.bin"  # a file that is mapped into memory is not written again
        path.write_bytes(data[: draw.choice((len(data), draw.randrange(len(data))))])
        try:
            found = read_weights(path)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert all(isinstance(value, torch.Tensor) for value in found.values())
    assert 50 < refused < 150


def test_files_that_are_not_here_are_named_and_where_they_go(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SORALAB_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.pt").write_bytes(b"a")
    assert fetched("a.pt") == [tmp_path / "weights" / "a.pt"] and capsys.readouterr().out == ""
    assert fetched("a.pt", "b.pt", "c.pt") == []
    out = capsys.readouterr().out
    assert out.startswith("not here: b.pt, c.pt\nIf") and "data/downloads/weights" in out and str(tmp_path) not in out


def test_the_harm_is_real(tmp_path):
    torch.save({"b": Harm(tmp_path / "harm")}, path := tmp_path / "w.pt")
    torch.load(path, weights_only=False)
    assert (tmp_path / "harm").exists()


def test_no_file_and_too_many_weights(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "none.safetensors")
    save_file(STATE, path := tmp_path / "w.safetensors")
    monkeypatch.setattr(published, "MOST_WEIGHTS", 2)
    with pytest.raises(ValueError, match="holds 3 tensors; it takes from 1 to 2"):
        read_weights(path)


def test_a_large_table_of_names_is_refused(tmp_path, monkeypatch):
    torch.save(STATE, path := tmp_path / "w.pt")
    monkeypatch.setattr(published, "MOST_PICKLE", 20)
    with pytest.raises(ValueError, match="would grow"):
        read_weights(path)
