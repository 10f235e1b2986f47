"""The networks: pure forward maps, registered Keras objects under the package name "lts"."""
