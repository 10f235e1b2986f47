"""The networks: forward maps without losses.

All are Keras objects, registered under the package name "lts".
"""
