"""Detectors as exportable networks: decoded boxes and scores; a runtime's own operator selects."""

from __future__ import annotations

from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import clip_boxes_to_image

from seernet.errors import ExportError
from seernet.export.packed import REMEDY
from seernet.models import Detector

OUTPUTS = ("boxes", "scores")
CANDIDATES = "candidates"
SELECTED = "selected"
NEVER = -1.0  # a score that no threshold lets pass


class DecodedDetector(nn.Module):
    """A one-stage detector up to the choice of its boxes.

    Args:
        detector: SSD or RetinaNet; its quantized layers may be integer ones.
        input_shape: Channels, height and width of one image.
        selects: Whether the scores are given a second time, for the choice among boxes.

    Raises:
        ExportError: If it is a detector of another kind.
    """

    anchors: Tensor

    def __init__(
        self, detector: Detector, input_shape: tuple[int, ...], selects: bool = False
    ) -> None:
        super().__init__()
        model: Any = detector.model
        if not detector.decodable:
            raise ExportError(
                f"{type(model).__name__} cannot be exported to ONNX, of detectors only SSD and "
                f"RetinaNet can{REMEDY}"
            )
        self.detector = detector
        self.size = (input_shape[1], input_shape[2])
        image = torch.zeros(1, *input_shape)
        with torch.no_grad():
            maps = list(_values(model.backbone(detector._normalized(image))))
            (anchors,) = model.anchor_generator(ImageList(image, [self.size]), maps)
        self.register_buffer("anchors", anchors)
        self.selects = selects
        places = [each.shape[-2] * each.shape[-1] for each in maps]
        self.level_sizes = [len(anchors) // sum(places) * count for count in places]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map `b x c x h x w` in [0, 1] to boxes, `b x n x 4` corners in pixels, and scores of the
        classes without background, `b x classes x n`; again, of the candidates alone, to choose
        among these."""
        model: Any = self.detector.model
        maps = list(_values(model.backbone(self.detector._normalized(images))))
        found = model.head(maps)
        offsets = found["bbox_regression"]
        count = offsets.shape[1]
        anchors = self.anchors.repeat(offsets.shape[0], 1)
        boxes = model.box_coder.decode_single(offsets.reshape(-1, 4), anchors)
        boxes = clip_boxes_to_image(boxes, self.size).reshape(-1, count, 4)
        logits = found["cls_logits"]
        scores = logits.softmax(dim=-1) if isinstance(model, SSD) else logits.sigmoid()
        given = scores[..., 1:].transpose(1, 2)
        if not self.selects:
            return boxes, given
        return boxes, given, self._candidates(scores)[..., 1:].transpose(1, 2)

    def _candidates(self, scores: Tensor) -> Tensor:
        """Let only as many boxes as torchvision's choice begins with keep their scores.

        These are the best of each class (SSD) or of each level of the pyramid (RetinaNet).

        Args:
            scores: `b x n x classes`, background first.
        """
        model: Any = self.detector.model
        if isinstance(model, SSD):
            most = min(model.topk_candidates, scores.shape[1])
            least = scores.topk(most, dim=1).values[:, -1:]
            return torch.where(scores >= least, scores, NEVER)
        levels = []
        for level in torch.split(scores, self.level_sizes, dim=1):
            flat = level.flatten(1)
            most = min(model.topk_candidates, flat.shape[1])
            least = flat.topk(most, dim=1).values[:, -1:, None]
            levels.append(torch.where(level >= least, level, NEVER))
        return torch.cat(levels, dim=1)

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` gives."""
        return [*OUTPUTS, CANDIDATES] if self.selects else [*OUTPUTS]

    @property
    def properties(self) -> dict[str, str]:
        """What whoever reads the file needs to know."""
        return {"detections_per_image": str(self.detector.model.detections_per_img)}

    def add_selection(self, graph: onnx.GraphProto) -> None:
        """Append the choice of boxes, class by class: rows of image, class and box.

        Args:
            graph: Of a detector that selects; the candidates are no output of it any more.
        """
        model: Any = self.detector.model
        graph.output.remove(next(each for each in graph.output if each.name == CANDIDATES))
        limits = {
            "most_boxes": torch.tensor(model.detections_per_img, dtype=torch.int64),  # of a class
            "overlap_threshold": torch.tensor(model.nms_thresh, dtype=torch.float32),
            "score_threshold": torch.tensor(model.score_thresh, dtype=torch.float32),
        }
        for name, value in limits.items():
            graph.initializer.append(numpy_helper.from_array(value.numpy(), name))
        node = helper.make_node("NonMaxSuppression", [OUTPUTS[0], CANDIDATES, *limits], [SELECTED])
        graph.node.append(node)
        shape: list[str | int | None] = ["selections", 3]
        kind = onnx.TensorProto.INT64
        graph.output.append(helper.make_tensor_value_info(SELECTED, kind, shape))


def _values(maps: Any) -> Any:
    return [maps] if isinstance(maps, Tensor) else maps.values()
