"""Helpers that several tests share: slow twins, makers of inputs, a Hub on localhost."""
