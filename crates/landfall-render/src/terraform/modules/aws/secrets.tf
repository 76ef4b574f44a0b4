variable "secrets" {
  type        = map(string)
  description = "The secrets by their path, each with what it is. Values are put there by people or by rotation, never here."
}

variable "kms_key_arn" {
  type        = string
  description = "The key that encrypts the values."
}

resource "aws_secretsmanager_secret" "this" {
  # checkov:skip=CKV2_AWS_57: Rotation needs a function that knows the other side; the file says how often it is due.
  for_each                = var.secrets
  name                    = each.key
  description             = each.value
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = 30

  lifecycle {
    prevent_destroy = true
  }
}

output "arns" {
  description = "The secrets, as policies name them."
  value       = values(aws_secretsmanager_secret.this)[*].arn
}
