"""Prepared data on disk and the LightningDataModules that stream it."""
