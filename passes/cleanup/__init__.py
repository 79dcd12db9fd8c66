"""Exact rewrites that remove work and let later passes see plain operators."""
