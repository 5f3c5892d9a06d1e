"""Run an exported network with ONNX Runtime and numpy alone.

    python examples/run_onnx.py models/exported/small/model.onnx image.npy

A classifier names the class; a detector the boxes that it is confident of: class, score, and left,
top, right and bottom edge in pixels of the image that it was given.

The image is a uint8 array, height x width x channels, of the size that the network was trained at.
Of a file, as in training, with `image = PIL.Image.open("cat.jpg").convert("RGB")` ("L" for gray):
`numpy.asarray(PIL.ImageOps.fit(image, (32, 32), method=2))` for a classifier, which sees the
middle; `numpy.asarray(image.resize((320, 320), 2))` for a detector, which sees all of it, stretched
(method 2 is bilinear).
"""

import json
import sys

import numpy as np
import onnxruntime

CONFIDENT = 0.5

if len(sys.argv) != 3:
    sys.exit(__doc__)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
classes = json.loads(about["classes"])
image = np.load(sys.argv[2])
if image.ndim == 2:
    image = image[..., None]  # gray images may come without their one channel
wanted = session.get_inputs()[0].shape[1:]
if list(image.shape) != wanted or image.dtype != np.uint8:
    sys.exit(f"this network takes uint8 images of {wanted}, not {image.dtype} {image.shape}")
answers = session.run(None, {"image": image[None]})  # any number of images at once
if about["task"] == "detection":
    boxes, scores, selected = answers  # selected: image, class and box that suppression left
    for index, label, place in selected:
        if scores[index, label, place] >= CONFIDENT:
            corners = " ".join(f"{edge:.0f}" for edge in boxes[index, place])
            print(f"{classes[label]} {scores[index, label, place]:.2f} {corners}")
else:
    (logits,) = answers
    print(classes[int(logits[0].argmax())])
