variable "name" {
  type        = string
  description = "What the key's name begins with."
}

variable "region" {
  type        = string
  description = "The region of the key."
}

data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "this" {
  # checkov:skip=CKV_AWS_109: The policy of a key names the key itself as "*".
  # checkov:skip=CKV_AWS_111: The policy of a key names the key itself as "*".
  # checkov:skip=CKV_AWS_356: The policy of a key names the key itself as "*".
  statement {
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:aws:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }
}

# Copies of data are encrypted by a key of the region in which they are.
resource "aws_kms_key" "this" {
  region                  = var.region
  description             = "Copies of data of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.this.json

  lifecycle {
    prevent_destroy = true
  }
}

output "arn" {
  description = "The key."
  value       = aws_kms_key.this.arn
}
