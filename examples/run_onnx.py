"""Run an exported classifier with ONNX Runtime and numpy alone.

    python examples/run_onnx.py models/exported/small/model.onnx image.npy

The image is a uint8 array, height x width x channels, as a camera gives it; of a file it is
`numpy.asarray(PIL.Image.open("cat.jpg").resize((32, 32)))`.
"""

import json
import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
image = np.load(sys.argv[2])
(logits,) = session.run(None, {"image": image[None]})  # any number of images at once
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
print(classes[int(logits[0].argmax())])
