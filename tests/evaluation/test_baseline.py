"""The baseline comes back as it was saved, and its training resumes."""

import sys

import pytest
import torch

from seernet.config import DataConfig, ModelConfig
from seernet.data import Dataset, DatasetInfo
from seernet.errors import ArtifactError, ModelError
from seernet.evaluation import Folders, Pretrainer, load_baseline, save_baseline
from seernet.evaluation.baseline import inputs
from seernet.models import build
from seernet.training import seeded


def test_saved_baseline_computes_the_same(project, params, tmp_path):
    info = DatasetInfo.load(project.folders.prepared)
    model = load_baseline(project.folders.baseline, params.model, info)
    save_baseline(tmp_path / "new", model, project.graph)
    again = load_baseline(tmp_path / "new", params.model, info)
    image = torch.randn(2, *info.input_shape)
    assert not again.training
    assert torch.equal(again(image), model(image))


def test_tied_weights_can_be_saved(project, tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    save_baseline(tmp_path, model, project.graph)
    assert (tmp_path / "model.safetensors").stat().st_size > 0


def test_checkpoint_of_the_parameters_is_not_read_again(project, params):
    info = DatasetInfo.load(project.folders.prepared)
    config = params.model.model_copy(update={"checkpoint": "removed.pt"})
    load_baseline(project.folders.baseline, config, info)


@pytest.mark.parametrize("cause", ["missing", "truncated", "another network"])
def test_bad_baseline_is_an_error_that_names_the_stage(project, params, tmp_path, cause):
    info = DatasetInfo.load(project.folders.prepared)
    config = params.model
    if cause == "another network":
        config = ModelConfig(name="resnet20", arguments={"width": 6})
    if cause != "missing":
        data = (project.folders.baseline / "model.safetensors").read_bytes()
        end = 1000 if cause == "truncated" else len(data)
        (tmp_path / "model.safetensors").write_bytes(data[:end])
    with pytest.raises(ArtifactError, match="run the pretrain stage again"):
        load_baseline(tmp_path, config, info)


def test_interrupted_pretraining_equals_an_uninterrupted_one(project, params, tmp_path):
    folders = Folders(project.folders.prepared, tmp_path / "baseline", tmp_path / "progress")
    dataset = Dataset.open(folders.prepared, torch.device("cpu"), workers=0)

    def stop(row):
        raise KeyboardInterrupt

    def network():
        with seeded(0):
            return build(params.model, len(dataset.info.classes), dataset.info.input_shape)

    with pytest.raises(KeyboardInterrupt):
        Pretrainer(params, folders).run(network(), dataset, stop)
    trainer = Pretrainer(params, folders)
    model = network()
    assert trainer.run(model, dataset) == project.score
    trainer.finish()
    assert not folders.progress.exists()
    whole = load_baseline(project.folders.baseline, params.model, dataset.info)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_inputs_see_what_decides_a_training_and_nothing_else(project, params, tmp_path):
    def of(data=None, model=None, device="cpu"):
        return inputs(
            project.folders.prepared,
            params.data.model_copy(update=data or {}),
            params.model.model_copy(update=model or {}),
            device,
        )

    assert of({"workers": 7, "path": "elsewhere"}, {"checkpoint": "a.pt"}) == of()
    assert of({"flip": True}) != of()
    assert of(model={"arguments": {"width": 8}}) != of()
    assert of(device="cuda") != of()
    file = tmp_path / "net.py"
    file.write_text("def net(): ...")
    named = of(model={"name": f"{file}:net"})
    file.write_text("def net(): return None")
    assert of(model={"name": f"{file}:net"}) != named


@pytest.mark.parametrize("name", ["nets/mine.py:net", "nets.mine:net"])
def test_files_that_a_users_network_imports_count(project, tmp_path, monkeypatch, name):
    (tmp_path / "nets").mkdir()
    for file, text in (("__init__", ""), ("mine", "from nets.blocks import net"), ("blocks", "")):
        (tmp_path / f"nets/{file}.py").write_text(text)
    prepared = project.folders.prepared.resolve()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])

    def found():
        return inputs(prepared, DataConfig(name="digits"), ModelConfig(name=name), "cpu")

    before = found()
    (tmp_path / "nets/blocks.py").write_text("net = None")
    assert found() != before


@pytest.mark.parametrize("name", ["absent/net.py:net", "absent_package.module:net"])
def test_missing_definition_is_an_error(project, name):
    with pytest.raises(ModelError, match=r"check model\.name"):
        inputs(project.folders.prepared, DataConfig(name="digits"), ModelConfig(name=name), "cpu")


def test_definition_in_a_module_is_found(project):
    model = ModelConfig(name="seernet.models.resnet20:resnet20")
    found = inputs(project.folders.prepared, DataConfig(name="digits"), model, "cpu")
    assert len(found["definition"]) == 64
