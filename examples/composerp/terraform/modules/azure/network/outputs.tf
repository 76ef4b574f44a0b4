output "resource_group" {
  description = "The resource group."
  value       = azurerm_resource_group.this.name
}

output "network_id" {
  description = "The network."
  value       = azurerm_virtual_network.this.id
}

output "private_subnet_id" {
  description = "The subnet of the nodes."
  value       = azurerm_subnet.private.id
  depends_on  = [azurerm_subnet_nat_gateway_association.this, azurerm_nat_gateway_public_ip_association.this]
}

output "endpoint_subnet_id" {
  description = "The subnet of private endpoints."
  value       = azurerm_subnet.endpoints.id
}

output "data_subnet_id" {
  description = "The subnet of databases."
  value       = azurerm_subnet.data.id
}

output "postgres_zone_id" {
  description = "The private names of databases."
  value       = azurerm_private_dns_zone.postgres.id
  depends_on  = [azurerm_private_dns_zone_virtual_network_link.postgres]
}
