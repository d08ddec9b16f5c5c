"""Milvus 2.4 or newer, milvus-lite and Zilliz Cloud, over gRPC."""
