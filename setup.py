"""What pyproject.toml cannot say: the packages that are found, and conf/ as one of them."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["flowerexp*"]), "flowerexp.conf"],
      package_dir={"flowerexp.conf": "conf"})
