"""reweighting"""
