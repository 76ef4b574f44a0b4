variable "name" {
  type        = string
  description = "The name of the bucket; one name for the whole world."
}

variable "kms_key_arn" {
  type        = string
  description = "The key that encrypts the objects."
}

variable "keep_days" {
  type        = number
  description = "After how many days an object is removed; 0 to keep objects for good."
  default     = 0
}

variable "copies" {
  type        = map(string)
  description = "The regions that have a copy, each with the key that encrypts it there."
  default     = {}
}

locals {
  # The bucket and its copies are made alike. No region stands for the region of the root.
  buckets = merge(
    { "" = { name = var.name, key = var.kms_key_arn } },
    { for region, key in var.copies : region => { name = "${var.name}-${region}", key = key } },
  )
}

resource "aws_s3_bucket" "this" {
  # checkov:skip=CKV_AWS_18: Accesses are logged by the trail of the account.
  # checkov:skip=CKV2_AWS_62: Nothing waits for notifications.
  # checkov:skip=CKV_AWS_144: The file says by `copies` which regions have a copy.
  for_each = local.buckets
  region   = each.key == "" ? null : each.key
  bucket   = each.value.name

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each                = local.buckets
  region                  = each.key == "" ? null : each.key
  bucket                  = aws_s3_bucket.this[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.buckets
  region   = each.key == "" ? null : each.key
  bucket   = aws_s3_bucket.this[each.key].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.buckets
  region   = each.key == "" ? null : each.key
  bucket   = aws_s3_bucket.this[each.key].id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = each.value.key
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each   = local.buckets
  region     = each.key == "" ? null : each.key
  bucket     = aws_s3_bucket.this[each.key].id
  depends_on = [aws_s3_bucket_versioning.this]

  rule {
    id     = "incomplete"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }

    noncurrent_version_expiration {
      noncurrent_days = var.keep_days > 0 ? var.keep_days : 90
    }
  }

  dynamic "rule" {
    for_each = var.keep_days > 0 ? [var.keep_days] : []

    content {
      id     = "keep"
      status = "Enabled"

      filter {}

      expiration {
        days = rule.value
      }

      abort_incomplete_multipart_upload {
        days_after_initiation = 7
      }
    }
  }
}

data "aws_iam_policy_document" "tls" {
  for_each = local.buckets

  statement {
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.this[each.key].arn, "${aws_s3_bucket.this[each.key].arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "tls" {
  for_each = local.buckets
  region   = each.key == "" ? null : each.key
  bucket   = aws_s3_bucket.this[each.key].id
  policy   = data.aws_iam_policy_document.tls[each.key].json
}

data "aws_iam_policy_document" "replication_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "replication" {
  count = length(var.copies) > 0 ? 1 : 0

  statement {
    actions   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
    resources = [aws_s3_bucket.this[""].arn]
  }

  statement {
    actions   = ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"]
    resources = ["${aws_s3_bucket.this[""].arn}/*"]
  }

  statement {
    actions   = ["s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"]
    resources = [for region in keys(var.copies) : "${aws_s3_bucket.this[region].arn}/*"]
  }

  statement {
    actions   = ["kms:Decrypt"]
    resources = [var.kms_key_arn]
  }

  statement {
    actions   = ["kms:Encrypt", "kms:GenerateDataKey"]
    resources = values(var.copies)
  }
}

resource "aws_iam_role" "replication" {
  count              = length(var.copies) > 0 ? 1 : 0
  name               = "${var.name}-replication"
  assume_role_policy = data.aws_iam_policy_document.replication_trust.json
}

resource "aws_iam_role_policy" "replication" {
  count  = length(var.copies) > 0 ? 1 : 0
  name   = "replicate"
  role   = aws_iam_role.replication[0].id
  policy = data.aws_iam_policy_document.replication[0].json
}

resource "aws_s3_bucket_replication_configuration" "this" {
  count      = length(var.copies) > 0 ? 1 : 0
  bucket     = aws_s3_bucket.this[""].id
  role       = aws_iam_role.replication[0].arn
  depends_on = [aws_s3_bucket_versioning.this]

  dynamic "rule" {
    for_each = var.copies

    content {
      id       = rule.key
      status   = "Enabled"
      priority = index(keys(var.copies), rule.key)

      filter {}

      delete_marker_replication {
        status = "Disabled"
      }

      source_selection_criteria {
        sse_kms_encrypted_objects {
          status = "Enabled"
        }
      }

      destination {
        bucket        = aws_s3_bucket.this[rule.key].arn
        storage_class = "STANDARD_IA"

        encryption_configuration {
          replica_kms_key_id = rule.value
        }
      }
    }
  }
}

output "name" {
  description = "The name of the bucket."
  value       = aws_s3_bucket.this[""].bucket
}

output "arn" {
  description = "The bucket, as policies name it."
  value       = aws_s3_bucket.this[""].arn
}
