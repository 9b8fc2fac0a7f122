"""Packaging: the folders gdas_tf/, cli/ and export/ install as gdas_tf, gdas_tf.cli and gdas_tf.export."""

from pathlib import Path

from setuptools import find_packages, setup

_ROOTS = {"gdas_tf": "gdas_tf", "gdas_tf.cli": "cli", "gdas_tf.export": "export"}


def _packages() -> dict[str, str]:
    """Every package by its name, with the folder that it lies in."""
    found = dict(_ROOTS)
    for name, folder in _ROOTS.items():
        for package in find_packages(folder):
            found[f"{name}.{package}"] = str(Path(folder, *package.split(".")))
    return found


setup(
    name="gdas-tf",
    version="0.2.0",
    description="Search a convolutional cell for your images with GDAS, retrain it, export it verified",
    python_requires=">=3.11",
    packages=sorted(_packages()),
    package_dir=_packages(),
    package_data={
        "gdas_tf.export.serving": ["page/*"],
        "gdas_tf.studies": ["page/*", "published.json"],
    },
    install_requires=[
        "tensorflow>=2.20,<2.22",
        "keras>=3.12,<3.16",
        "tensorflow-datasets>=4.9.9,<5",
        "importlib_resources>=5",  # tensorflow-datasets imports it to download, without declaring it
        "tf2onnx>=1.17,<1.18",
        "onnx>=1.18,<2",
        "onnxruntime>=1.22,<2",
        "numpy>=1.26,<3",
        "scikit-learn>=1.5,<2",
        "scipy>=1.11,<2",
        "pillow>=10.3",
        "matplotlib>=3.9,<4",
        "jinja2>=3.1,<4",
        "pyyaml>=6,<7",
        "pydantic>=2.7,<3",
        "filelock>=3.13,<4",
        "tqdm>=4.66,<5",
        "psutil>=5.9",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.20,<2.22"],
        "serve": [
            "granian[uvloop]>=2.8,<3",
            "orjson>=3.10,<4",
            "python-multipart>=0.0.32",  # limits the headers of a form's part
            "prometheus-client>=0.20,<1",
        ],
        "study": ["distributed>=2024.5"],  # studies on several machines
        "tune": ["keras-tuner>=1.4.7,<2"],
        "dev": [
            "distributed>=2024.5",
            "keras-tuner>=1.4.7,<2",
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "ruff>=0.8,<1",
            "tritonclient[http]>=2.50,<3",
            "requests>=2.32,<3",
            "websockets>=13",
        ],
    },
    entry_points={"console_scripts": ["gdas-tf = gdas_tf.cli.main:main"]},
)
