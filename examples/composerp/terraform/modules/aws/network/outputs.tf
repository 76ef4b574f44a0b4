output "network_id" {
  description = "The network."
  value       = aws_vpc.this.id
}

output "cidr" {
  description = "The addresses of the network."
  value       = aws_vpc.this.cidr_block
}

output "public_subnet_ids" {
  description = "The subnets of what the internet reaches, in the order of the zones."
  value       = [for zone in var.zones : aws_subnet.public[zone].id]
}

output "private_subnet_ids" {
  description = "The subnets of the nodes, in the order of the zones."
  value       = [for zone in var.zones : aws_subnet.private[zone].id]
}

output "private_subnet_ids_by_zone" {
  description = "The subnets of the nodes, by zone."
  value       = { for zone in var.zones : zone => aws_subnet.private[zone].id }
}

output "data_subnet_ids" {
  description = "The subnets of the managed stores, in the order of the zones."
  value       = [for zone in var.zones : aws_subnet.data[zone].id]
}

output "kms_key_arn" {
  description = "The key that encrypts data and logs."
  value       = aws_kms_key.this.arn
}
