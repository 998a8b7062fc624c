"""Optimiser steps over all ranks, and what is kept and reported of them."""
