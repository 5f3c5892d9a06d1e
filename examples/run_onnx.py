"""Run an exported classifier with ONNX Runtime and numpy alone.

    python examples/run_onnx.py models/exported/small/model.onnx image.npy

The image is a uint8 array, height x width x channels, of the size that the network was trained at;
of a file, cropped and resized as in training, it is
`numpy.asarray(PIL.ImageOps.fit(PIL.Image.open("cat.jpg").convert("RGB"), (32, 32), method=2))`
("L" instead of "RGB" for gray; method 2 is bilinear).
"""

import json
import sys

import numpy as np
import onnxruntime

if len(sys.argv) != 3:
    sys.exit(__doc__)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
image = np.load(sys.argv[2])
if image.ndim == 2:
    image = image[..., None]  # gray images may come without their one channel
wanted = session.get_inputs()[0].shape[1:]
if list(image.shape) != wanted or image.dtype != np.uint8:
    sys.exit(f"this network takes uint8 images of {wanted}, not {image.dtype} {image.shape}")
(logits,) = session.run(None, {"image": image[None]})  # any number of images at once
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
print(classes[int(logits[0].argmax())])
