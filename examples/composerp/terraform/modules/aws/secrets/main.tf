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
