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
SELECTED = "selected"


class DecodedDetector(nn.Module):
    """A one-stage detector up to the choice of its boxes.

    Args:
        detector: SSD or RetinaNet; its quantized layers may be integer ones.
        input_shape: Channels, height and width of one image.

    Raises:
        ExportError: If it is a detector of another kind.
    """

    anchors: Tensor

    def __init__(self, detector: Detector, input_shape: tuple[int, ...]) -> None:
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

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map `b x c x h x w` in [0, 1] to boxes, `b x n x 4` corners in pixels, and scores of the
        classes without background, `b x classes x n`."""
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
        return boxes, scores[..., 1:].transpose(1, 2)

    @property
    def properties(self) -> dict[str, str]:
        """What whoever reads the file needs to know."""
        return {"detections_per_image": str(self.detector.model.detections_per_img)}

    def add_selection(self, graph: onnx.GraphProto) -> None:
        """Append the choice of boxes, class by class: rows of image, class and box."""
        model: Any = self.detector.model
        limits = {
            "most_boxes": torch.tensor(model.topk_candidates, dtype=torch.int64),
            "overlap_threshold": torch.tensor(model.nms_thresh, dtype=torch.float32),
            "score_threshold": torch.tensor(model.score_thresh, dtype=torch.float32),
        }
        for name, value in limits.items():
            graph.initializer.append(numpy_helper.from_array(value.numpy(), name))
        node = helper.make_node("NonMaxSuppression", [*OUTPUTS, *limits], [SELECTED])
        graph.node.append(node)
        shape: list[str | int | None] = ["selections", 3]
        kind = onnx.TensorProto.INT64
        graph.output.append(helper.make_tensor_value_info(SELECTED, kind, shape))


def _values(maps: Any) -> Any:
    return [maps] if isinstance(maps, Tensor) else maps.values()
