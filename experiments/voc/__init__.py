"""PASCAL VOC transfer: the data, pictures, proposals and metrics that the three VOC binaries share."""
