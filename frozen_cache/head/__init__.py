"""The mask head: what turns cached queries, boxes and features into instance masks."""
