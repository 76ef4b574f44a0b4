output "arns" {
  description = "The secrets, as policies name them."
  value       = values(aws_secretsmanager_secret.this)[*].arn
}
