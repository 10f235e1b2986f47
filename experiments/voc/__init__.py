"""Transfer to PASCAL VOC: classification, detection and segmentation."""
