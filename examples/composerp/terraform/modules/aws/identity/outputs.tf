output "annotation" {
  description = "What the service account says to get the role."
  value       = { "eks.amazonaws.com/role-arn" = aws_iam_role.this.arn }
}
