output "address" {
  description = "The name under which clients reach the store."
  value       = aws_db_instance.this.address
}

output "replica_addresses" {
  description = "The names of the read replicas."
  value       = aws_db_instance.replica[*].address
}

output "secret_arn" {
  description = "Where the provider keeps the owner's password, which it also rotates."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}
